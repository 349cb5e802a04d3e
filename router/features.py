"""From a conversation to the features that the gate reads.

Two blocks, computed once a request: the sentence vector of the text (meaning) and its surface
(hashed character n-grams, script and punctuation shares), which tells languages and code apart
where an English sentence encoder cannot.
"""

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from router.surface import SURFACE_DIMENSIONS, surface

Vector = npt.NDArray[np.float32]
Encoder = Callable[[Sequence[str]], Vector]

FEATURE_VERSION = "1"

HEAD_CHARACTERS = 600
TAIL_CHARACTERS = 400
HISTORY_SHARE = 0.2
SHORT_MESSAGE_SHARE = 0.25
SHORT_MESSAGE_CHARACTERS = 60


class ConversationError(ValueError):
    """A conversation without any text to route by."""


@dataclass(frozen=True)
class Features:
    """What the gate reads: `vector` [d], unit length, and `surface` [SURFACE_DIMENSIONS].

    `said` is the message that is answered, for a policy that minds its length.
    """

    vector: Vector
    surface: Vector
    said: str = ""

    def joined(self) -> Vector:
        """Return both blocks as one row [d + SURFACE_DIMENSIONS]."""
        return np.concatenate([self.vector, self.surface])


def salient(text: str) -> str:
    """Return the text clean and bounded: its head and tail where it is long.

    Questions stand at the beginning or at the end of long prompts, and the encoder reads
    256 tokens at most. Lone surrogates, which JSON can carry, become question marks.
    """
    clean = unicodedata.normalize("NFC", text.encode("utf-8", "replace").decode("utf-8")).strip()
    if len(clean) <= HEAD_CHARACTERS + TAIL_CHARACTERS:
        return clean
    return f"{clean[:HEAD_CHARACTERS]}\n…\n{clean[-TAIL_CHARACTERS:]}"


def shares(messages: Sequence[tuple[str, str]]) -> tuple[tuple[str, float], ...]:
    """Return the texts to encode with their shares, which sum to 1.

    The last user message dominates; the user's earlier turns, newest first and bounded, hold
    `HISTORY_SHARE`, and more behind a message too short to stand alone ("and in Java?").
    Raises `ConversationError` where no message has text.
    """
    spoken = [(role, text) for role, text in messages if text.strip()]
    if not spoken:
        raise ConversationError("messages: there is no text to route by.")
    said = [text for role, text in spoken if role == "user"] or [spoken[-1][1]]
    last = salient(said[-1])
    history = salient("\n".join(reversed(said[:-1])))
    if not history:
        return ((last, 1.0),)
    brevity = max(0.0, 1.0 - len(last) / SHORT_MESSAGE_CHARACTERS)
    earlier = HISTORY_SHARE + SHORT_MESSAGE_SHARE * brevity
    return ((last, 1.0 - earlier), (history, earlier))


def featurize(messages: Sequence[tuple[str, str]], encoder: Encoder) -> Features:
    """Return the features of a conversation of (role, text) pairs; one call of the encoder."""
    parts = shares(messages)
    weights = np.array([share for _, share in parts], dtype=np.float32)
    vectors = np.asarray(encoder([text for text, _ in parts]), dtype=np.float32)
    surfaces = np.stack([surface(text) for text, _ in parts])
    said = next((text for role, text in reversed(messages) if role == "user"), "")
    return Features(_unit(weights @ vectors), weights @ surfaces, said)


def _unit(vector: Vector) -> Vector:
    length = float(np.linalg.norm(vector))
    return vector / np.float32(length) if length > 0.0 else vector


def feature_dimensions(vector_dimensions: int) -> int:
    """Return the length of a joined row for an encoder of `vector_dimensions`."""
    return vector_dimensions + SURFACE_DIMENSIONS
