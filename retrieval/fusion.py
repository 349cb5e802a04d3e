"""Fusion of what words say and what vectors say into one ranking.

Two ways: by ranks (reciprocal rank fusion, Cormack, Clarke and Büttcher, 2009), and by scores, the
convex combination of Bruch, Gai and Ingber (2023, arXiv 2210.11934): each score is scaled to
0..1 between the least value that it can ever take and the largest that this query met.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from enum import StrEnum
from typing import TypeVar

import numpy as np
import numpy.typing as npt

RANK_CONSTANT = 60
"""The k of 1 / (k + rank): how slowly the weight of a rank falls."""

DENSE_WEIGHT = 0.85
"""Weight of meaning against words where a collection was not tuned."""

Item = TypeVar("Item", bound=Hashable)
Scores = npt.NDArray[np.float64]
"""One score for each candidate, [n]."""


class Fusion(StrEnum):
    """How the two rankings become one: by their scores or by their ranks."""

    CONVEX = "convex"
    RECIPROCAL = "rrf"


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


def convex(similarity: Scores, bm25: Scores, weight: npt.ArrayLike) -> Scores:
    """Combine cosines and BM25 scores, [n] each, of the same candidates into scores in 0..1.

    `weight` is the share of the cosines, one number or one for each candidate: passages of
    collections with weights of their own stay comparable, since both scores are scaled over all
    candidates together. Who is best by both scores 1.
    """
    dense, words = scaled(similarity, -1.0), scaled(bm25, 0.0)
    share = np.asarray(weight, dtype=np.float64)
    return share * dense + (1.0 - share) * words


def scaled(scores: Scores, least: float) -> Scores:
    """Scale scores so that `least`, the least possible one, is 0 and the largest met is 1."""
    if not len(scores) or scores.max() <= least:
        return np.zeros(len(scores))
    found: Scores = (scores - least) / (scores.max() - least)
    return np.clip(found, 0.0, 1.0)
