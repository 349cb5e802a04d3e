"""How good a ranking is, given what is relevant: hit rate, recall, reciprocal rank, nDCG."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence


def hit(found: Sequence[str], relevant: Collection[str], depth: int) -> float:
    """Return 1 where one of the first `depth` is relevant, else 0."""
    return float(any(item in relevant for item in found[:depth]))


def recall(found: Sequence[str], relevant: Collection[str], depth: int) -> float:
    """Return the share of what is relevant that is among the first `depth`; 0 where nothing is.

    `found` holds no repeats.
    """
    held = sum(item in relevant for item in found[:depth])
    return held / len(relevant) if relevant else 0.0


def reciprocal_rank(found: Sequence[str], relevant: Collection[str], depth: int) -> float:
    """Return 1 / the rank of the first relevant one, 0 where none is among the first `depth`."""
    ranks = (rank for rank, item in enumerate(found[:depth], start=1) if item in relevant)
    first = next(ranks, None)
    return 0.0 if first is None else 1.0 / first


def ndcg(found: Sequence[str], relevant: Collection[str], depth: int) -> float:
    """Return the discounted gain of the first `depth` over that of the best order, in 0..1.

    Relevant counts 1, discounted by log2(rank + 1) (Järvelin and Kekäläinen, 2002). `found` holds
    no repeats.
    """
    gain = sum(
        1.0 / math.log2(rank + 1)
        for rank, item in enumerate(found[:depth], start=1)
        if item in relevant
    )
    best = sum(1.0 / math.log2(rank + 1) for rank in range(1, min(len(relevant), depth) + 1))
    return gain / best if best else 0.0
