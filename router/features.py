"""From a conversation to the features that the gate reads.

Two blocks, computed once a request: the sentence vector of a text (meaning) and its surface
(hashed character n-grams, script and punctuation shares), which tells languages and code apart
where an English sentence encoder cannot.
"""

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from router.address import without_address
from router.parts import clean, parts
from router.surface import SURFACE_DIMENSIONS, surface

Vector = npt.NDArray[np.float32]
Encoder = Callable[[Sequence[str]], Vector]

FEATURE_VERSION = "2"

HISTORY_CHARACTERS = 1000
HISTORY_SHARE = 0.2
SHORT_MESSAGE_SHARE = 0.25
SHORT_MESSAGE_CHARACTERS = 60


class ConversationError(ValueError):
    """A conversation without any text to route by."""


@dataclass(frozen=True)
class Features:
    """What the gate reads: unit `vectors` [parts, d] and `surfaces` [parts, SURFACE_DIMENSIONS].

    A row for every part of the message that is answered (`router.parts`). `said` is that message,
    for a policy that minds its length. Lines of it that name an expert may be left `aside`.
    """

    vectors: Vector
    surfaces: Vector
    said: str = ""
    aside: bool = False

    @property
    def vector(self) -> Vector:
        """One unit vector [d] for all of it."""
        return _unit(self.vectors.mean(axis=0))

    def joined(self) -> Vector:
        """Return both blocks side by side [parts, d + SURFACE_DIMENSIONS]."""
        return np.concatenate([self.vectors, self.surfaces], axis=1)


def shares(messages: Sequence[tuple[str, str]]) -> tuple[tuple[str, float], ...]:
    """Return what is read, the message that is answered first, with shares that sum to 1.

    The last user message dominates; the user's earlier turns, newest first and bounded, hold
    `HISTORY_SHARE`, and more behind a message too short to stand alone ("and in Java?").
    Raises `ConversationError` where no message has text.
    """
    spoken = [(role, text) for role, text in messages if text.strip()]
    if not spoken:
        raise ConversationError("messages: there is no text to route by.")
    said = [text for role, text in spoken if role == "user"] or [spoken[-1][1]]
    last = clean(said[-1])
    history = clean("\n".join(reversed(said[:-1])))[:HISTORY_CHARACTERS]
    if not history:
        return ((last, 1.0),)
    brevity = max(0.0, 1.0 - len(last) / SHORT_MESSAGE_CHARACTERS)
    earlier = HISTORY_SHARE + SHORT_MESSAGE_SHARE * brevity
    return ((last, 1.0 - earlier), (history, earlier))


@dataclass(frozen=True, eq=False)
class Skim:
    """What is read of a conversation before the encoder runs.

    `texts` are the parts of the message that is answered and then, where there is one, the history,
    `surfaces` [texts, SURFACE_DIMENSIONS] theirs. The message has a `share` of what is read, 1
    without a history. `whole` is there where lines that name an expert were left aside, and holds
    them.
    """

    texts: tuple[str, ...]
    surfaces: Vector
    share: float
    said: str
    whole: "Skim | None" = None

    @property
    def alone(self) -> bool:
        """Whether it is one message of one part, with nothing before it."""
        return len(self.texts) == 1

    def read(self, encoder: Encoder) -> Features:
        """Return the features; one call of the encoder."""
        vectors = np.asarray(encoder(list(self.texts)), dtype=np.float32)
        aside = self.whole is not None
        if self.share == 1.0:
            return Features(vectors, self.surfaces, self.said, aside)
        # Every part stands in the light of the same history.
        mixed = [
            self.share * found[:-1] + (1.0 - self.share) * found[-1:]
            for found in (vectors, self.surfaces)
        ]
        return Features(np.stack([_unit(row) for row in mixed[0]]), mixed[1], self.said, aside)


def skim(messages: Sequence[tuple[str, str]], names: Set[str] = frozenset()) -> Skim:
    """Return what can be read of a conversation of (role, text) pairs without an encoder.

    Lines of the last message that name an expert are left aside; `names` come from
    `address.spoken`. Raises `ConversationError` where no message has text.
    """
    (last, share), *history = shares(messages)
    said = next((text for role, text in reversed(messages) if role == "user"), "")
    before = [text for text, _ in history]
    bare = without_address(last, names) if names else last
    if bare == last:
        return _skimmed(last, before, share, said)
    whole = _skimmed(last, before, share, said)
    return replace(_skimmed(bare, before, share, said), whole=whole)


def _skimmed(last: str, before: Sequence[str], share: float, said: str) -> Skim:
    texts = (*parts(last), *before)
    return Skim(texts, np.stack([surface(text) for text in texts]), share, said)


def featurize(messages: Sequence[tuple[str, str]], encoder: Encoder) -> Features:
    """Return the features of a conversation of (role, text) pairs; one call of the encoder."""
    return skim(messages).read(encoder)


def _unit(vector: Vector) -> Vector:
    length = float(np.linalg.norm(vector))
    return vector / np.float32(length) if length > 0.0 else vector


def feature_dimensions(vector_dimensions: int) -> int:
    """Return the length of a joined row for an encoder of `vector_dimensions`."""
    return vector_dimensions + SURFACE_DIMENSIONS
