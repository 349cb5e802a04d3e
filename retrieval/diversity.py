"""Diversity: no text twice, and passages that add to each other before ones that repeat.

Maximal marginal relevance (Carbonell and Goldstein, 1998) over the vectors of the passages.
Only equal texts count as repeated: two rules that differ in one number say different things.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from retrieval.schema import Vector


def distinct(texts: Sequence[str]) -> list[int]:
    """Return the places of the texts that are not, but for case and white space, an earlier one."""
    seen: dict[str, int] = {}
    for place, text in enumerate(texts):
        seen.setdefault(" ".join(text.split()).casefold(), place)
    return list(seen.values())


def diverse(scores: Sequence[float], vectors: Vector, relevance: float, limit: int) -> list[int]:
    """Return the places of up to `limit` passages in the order that they are chosen in.

    Each choice is the largest `relevance` * score - (1 - relevance) * its largest cosine to one
    chosen before. `scores` are in 0..1, best first; `vectors` [n, d] have unit length. With a
    `relevance` of 1 the order stays.
    """
    if relevance >= 1.0:
        return list(range(min(limit, len(scores))))
    return list(_chosen(np.asarray(scores, dtype=np.float64), vectors, relevance, limit))


def _chosen(
    scores: np.ndarray[tuple[int], np.dtype[np.float64]],
    vectors: Vector,
    relevance: float,
    limit: int,
) -> Iterator[int]:
    nearest = np.zeros(len(scores))
    left = np.ones(len(scores), dtype=bool)
    for _ in range(min(limit, len(scores))):
        gain = np.where(left, relevance * scores - (1.0 - relevance) * nearest, -np.inf)
        place = int(np.argmax(gain))
        left[place] = False
        nearest = np.maximum(nearest, vectors @ vectors[place])
        yield place
