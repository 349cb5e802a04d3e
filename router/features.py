"""From a conversation to the features that the gate reads.

Two blocks, computed once a request: the sentence vector of a text (meaning) and its surface
(hashed character n-grams, script and punctuation shares), which tells languages and code apart
where an English sentence encoder cannot.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

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
    for a policy that minds its length.
    """

    vectors: Vector
    surfaces: Vector
    said: str = ""

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


def featurize(messages: Sequence[tuple[str, str]], encoder: Encoder) -> Features:
    """Return the features of a conversation of (role, text) pairs; one call of the encoder."""
    (last, share), *history = shares(messages)
    texts = [*parts(last), *(text for text, _ in history)]
    count = len(texts) - len(history)
    vectors = np.asarray(encoder(texts), dtype=np.float32)
    surfaces = np.stack([surface(text) for text in texts])
    said = next((text for role, text in reversed(messages) if role == "user"), "")
    if not history:
        return Features(vectors, surfaces, said)
    # Every part stands in the light of the same history.
    mixed = [share * found[:count] + (1.0 - share) * found[count:] for found in (vectors, surfaces)]
    return Features(np.stack([_unit(row) for row in mixed[0]]), mixed[1], said)


def _unit(vector: Vector) -> Vector:
    length = float(np.linalg.norm(vector))
    return vector / np.float32(length) if length > 0.0 else vector


def feature_dimensions(vector_dimensions: int) -> int:
    """Return the length of a joined row for an encoder of `vector_dimensions`."""
    return vector_dimensions + SURFACE_DIMENSIONS
