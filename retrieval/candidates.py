"""Candidates of one or more collections, ranked together by words and by meaning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from retrieval.fusion import Fusion, Scores, convex, fuse
from retrieval.reading import trusted


@dataclass(frozen=True, slots=True)
class Candidates:
    """What a collection offers to a question: passages with their scores by both measures, [n].

    `bm25` is 0 where no word of the question occurs. `weight` is the share of the vectors in the
    fusion that the collection was tuned to, None where it was not; `reads`, how well the encoder
    knows the question's words, takes from it.
    """

    keys: list[int]
    bm25: Scores
    similarity: Scores
    weight: float | None
    reads: float = 1.0

    def share(self, usual: float) -> float:
        """Return the share of the vectors, where it is `usual` for who was not tuned."""
        return trusted(usual if self.weight is None else self.weight, self.reads)


@dataclass(frozen=True, slots=True)
class Ranked:
    """A passage in the fused ranking: its collection's place, its key there, and its scores."""

    place: int
    key: int
    score: float
    bm25: float
    similarity: float


def ranked(
    offers: Sequence[Candidates],
    fusion: Fusion,
    weight: float,
    depth: int,
    limit: int | None = None,
) -> list[Ranked]:
    """Return the candidates of all collections in one ranking, best first, `limit` at most.

    Convex fusion gives each collection the weight it was tuned to, and `weight` to the others;
    reciprocal ranks count the first `depth` by each measure.
    """
    bm25 = np.concatenate([offer.bm25 for offer in offers])
    similarity = np.concatenate([offer.similarity for offer in offers])
    if fusion is Fusion.CONVEX:
        shares = [offer.share(weight) for offer in offers]
        share = np.repeat(shares, [len(offer.keys) for offer in offers])
        scores = convex(similarity, bm25, share)
    else:
        scores = _by_ranks(bm25, similarity, depth)
    owners = [(place, key) for place, offer in enumerate(offers) for key in offer.keys]
    order = np.lexsort((-bm25, -scores))
    return [
        Ranked(
            owners[row][0],
            owners[row][1],
            float(scores[row]),
            float(bm25[row]),
            float(similarity[row]),
        )
        for row in order[:limit]
    ]


def contenders(
    offer: Candidates, offers: Sequence[Candidates], fusion: Fusion, weight: float, count: int
) -> set[int]:
    """Return the keys of those that may be among the `count` best of `offer` and others.

    The others may be any of `offers`, of which it is one. They change the scale, and with it the
    order within a collection; who has `count` better ones beside it on every scale is left out.
    """
    if not offer.keys:
        return set()
    bm25, similarity = offer.bm25, offer.similarity
    if fusion is Fusion.CONVEX:
        share = offer.share(weight)
        # What grows in a straight line from the first ratio to the last is compared at both.
        first, last = (
            share * (similarity + 1.0) + (1.0 - share) * bm25 * ratio
            for ratio in _ratios(offer, offers)
        )
        better = (first[:, None] < first) & (last[:, None] < last)
    else:
        worded = (bm25[:, None] < bm25) | (bm25[:, None] == 0.0)
        better = worded & (similarity[:, None] < similarity)
    beaten = better.sum(axis=1).tolist()
    return {key for key, ahead in zip(offer.keys, beaten, strict=True) if ahead < count}


def _ratios(offer: Candidates, offers: Sequence[Candidates]) -> tuple[float, float]:
    """Between which the largest cosine, plus 1, lies to the largest BM25, whatever joins."""
    words = float(offer.bm25.max())
    if words <= 0.0:
        return 0.0, 0.0
    filled = [one for one in offers if one.keys]
    most_alike = max(float(one.similarity.max()) for one in filled) + 1.0
    most_worded = max(float(one.bm25.max()) for one in filled)
    return (float(offer.similarity.max()) + 1.0) / most_worded, most_alike / words


def _by_ranks(bm25: Scores, similarity: Scores, depth: int) -> Scores:
    by_words = [row for row in np.argsort(-bm25, kind="stable").tolist() if bm25[row] > 0]
    by_vector = np.argsort(-similarity, kind="stable").tolist()
    scores = np.zeros(len(bm25))
    for row, score in fuse([by_words[:depth], by_vector[:depth]]):
        scores[row] = score
    return scores
