"""The encoder of an index, with what it gives checked before it is stored or searched by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from retrieval.errors import EncoderMismatch, InvalidQuery
from retrieval.filters import Condition, Filter
from retrieval.question import Question
from retrieval.reading import Reads
from retrieval.schema import Vector
from retrieval.vectors import unit

PROBE = "Every collection remembers the encoder that made it by its vector of this sentence."
"""The text whose vector identifies an encoder."""

Encode = Callable[[Sequence[str]], npt.NDArray[np.float32]]
"""Maps n texts to float32 vectors of unit length, [n, d]."""


class CheckedEncoder:
    """Encodes passages and questions, and refuses what cannot be vectors of them."""

    def __init__(
        self, passages: Encode, questions: Encode | None = None, reads: Reads | None = None
    ) -> None:
        """Questions are encoded as passages are, unless there is an own function for them.

        Without `reads` every word counts as known.
        """
        self._passages = passages
        self._reads = reads
        self._questions = questions or passages

    @cached_property
    def probe(self) -> Vector:
        """The vector [d] of the fixed text."""
        probe: Vector = self.passages([PROBE])[0]
        return probe

    def passages(self, texts: Sequence[str]) -> Vector:
        """Return one vector for each text, [n, d]. Raises `EncoderMismatch`."""
        return _checked(self._passages, texts)

    def reads(self, text: str) -> float:
        """Return how well the encoder knows the words of a question, in 0..1."""
        return 1.0 if self._reads is None else min(1.0, max(0.0, self._reads(text)))

    def question(self, text: str, vector: npt.ArrayLike | None = None) -> Vector:
        """Return the unit vector [d] of a question, which may be known already.

        Raises `InvalidQuery` for one that is no vector, `EncoderMismatch`.
        """
        direction = unit(_checked(self._questions, [text])[0] if vector is None else vector)
        if direction.ndim != 1 or not np.isfinite(direction).all():
            raise InvalidQuery("The query vector must be one row of finite numbers.")
        return direction

    def asked(
        self,
        text: str,
        vector: npt.ArrayLike | None = None,
        filter: Filter | Condition | None = None,
    ) -> Question:
        """Return a question to search for. Raises `InvalidQuery` and `EncoderMismatch`."""
        return Question.of(text, self.question(text, vector), filter, self.reads(text))


def _checked(encode: Encode, texts: Sequence[str]) -> Vector:
    vectors = np.asarray(encode(texts), dtype=np.float32)
    if vectors.ndim != 2 or len(vectors) != len(texts) or not np.isfinite(vectors).all():
        raise EncoderMismatch(
            f"The encoder gave an array of shape {vectors.shape} for {len(texts)} texts; "
            "one finite vector per text was expected."
        )
    return vectors
