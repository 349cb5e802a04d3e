"""Reciprocal rank fusion of several rankings into one (Cormack, Clarke and Büttcher, 2009)."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TypeVar

RANK_CONSTANT = 60
"""The k of 1 / (k + rank): how slowly the weight of a rank falls."""

Item = TypeVar("Item", bound=Hashable)


def fuse(rankings: Sequence[Sequence[Item]], k: int = RANK_CONSTANT) -> list[tuple[Item, float]]:
    """Merge rankings (best first, no repeats within one) into one list of (item, score).

    The score is the sum of 1 / (k + rank) over the rankings that hold the item, divided by
    its largest possible value, so that an item which is first everywhere scores 1. Equal
    scores keep the order in which the rankings, read in turn, first name the items.
    """
    scores: dict[Item, float] = {}
    for ranking in rankings:
        for rank, item in enumerate(ranking, start=1):
            scores[item] = scores.get(item, 0.0) + 1.0 / (k + rank)
    best = len(rankings) / (k + 1)
    ranked = sorted(scores.items(), key=lambda pair: pair[1], reverse=True)
    return [(item, score / best) for item, score in ranked]
