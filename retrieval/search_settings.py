"""How an index searches: the settings that a search and the joining of its findings share."""

from __future__ import annotations

from dataclasses import dataclass

from retrieval.errors import InvalidQuery
from retrieval.fusion import DENSE_WEIGHT, Fusion

POOL = 20
"""Passages at the top of the fused ranking that repeats, diversity and a reranker choose among."""


@dataclass(frozen=True, slots=True)
class SearchSettings:
    """How an index searches.

    `fusion` joins the two rankings; `dense_weight` is the share of meaning against words, in 0..1,
    for collections that were not tuned. Each ranking brings `candidates` passages. `relevance`
    weighs a passage's own score against its likeness to those before it: 1 leaves the order. With
    `alike` all collections have the same weight, whatever they were tuned to.
    """

    fusion: Fusion = Fusion.CONVEX
    dense_weight: float = DENSE_WEIGHT
    candidates: int = 50
    relevance: float = 1.0
    alike: bool = False

    def depth(self, top_k: int) -> int:
        """Return how many passages each ranking brings where `top_k` are asked for.

        Raises `InvalidQuery` where none are.
        """
        if top_k < 1:
            raise InvalidQuery(f"top_k must be at least 1, not {top_k}.")
        return max(self.candidates, top_k)

    def pool(self, top_k: int) -> int:
        """Return how many of the fused ranking the `top_k` are chosen among."""
        return max(POOL, 2 * top_k)
