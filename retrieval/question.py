"""A question as collections are searched for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from retrieval.filters import Condition, Filter, condition
from retrieval.schema import Vector
from retrieval.words import query_terms

QUERY_WORDS = 64
"""Distinct words of a question that are searched for, and as many pairs of them."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is searched for: the text, its terms, its unit vector [d], and what it is limited to.

    `reads` says how well the encoder knows its words, in 0..1.
    """

    text: str
    words: Sequence[str]
    vector: Vector
    condition: Condition
    reads: float = 1.0

    @classmethod
    def of(
        cls,
        text: str,
        vector: Vector,
        filter: Filter | Condition | None = None,
        reads: float = 1.0,
    ) -> Self:
        """Make words of a text. Raises `InvalidQuery` for a filter that makes no sense."""
        wanted = filter if isinstance(filter, Condition) else condition(filter)
        return cls(text, query_terms(text, QUERY_WORDS), vector, wanted, reads)
