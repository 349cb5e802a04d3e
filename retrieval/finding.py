"""What a search found in one collection, and how findings of several become passages.

A search ends in one place with all collections that it was asked for, elsewhere with those of the
experts that were chosen after it; both fuse the same candidates on the same scale here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from retrieval.candidates import Candidates, Ranked, ranked
from retrieval.diversity import distinct, diverse
from retrieval.passage import Passage
from retrieval.reranking import reordered
from retrieval.schema import Vector
from retrieval.search_settings import SearchSettings
from retrieval.store import StoredPassage

NOTHING = -1.0


@dataclass(frozen=True, slots=True)
class Sighting:
    """A passage that may be among the best, by its key; it has no score before it is fused.

    `vector` is [d] where diversity counts, else [0]; `verdict` is a reranker's, None from none.
    """

    key: int
    passage: Passage
    vector: Vector = field(repr=False, compare=False)
    verdict: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Finding:
    """What a collection offers to a question, and those of its passages that may be the best.

    The passages are in no particular order: how good each is depends on what else was found, see
    `best_of`.
    """

    collection: str
    offer: Candidates
    sightings: tuple[Sighting, ...]

    @property
    def similarity(self) -> float:
        """The largest cosine of a passage with the question; `NOTHING` where there is none."""
        return float(self.offer.similarity.max()) if self.offer.keys else NOTHING


def leading(offers: Sequence[Candidates], top_k: int, settings: SearchSettings) -> list[Ranked]:
    """Return the top of the fused ranking of one or more collections, best first."""
    fusion, weight = settings.fusion, settings.dense_weight
    return ranked(offers, fusion, weight, settings.depth(top_k), settings.pool(top_k))


def shortlist(
    findings: Sequence[Finding], top_k: int, settings: SearchSettings
) -> list[tuple[float, Sighting]]:
    """Return what the `top_k` best are chosen among, with fused scores, best first, no text twice.

    `settings` are those of the search.
    """
    if not findings:
        return []
    offers = [finding.offer for finding in findings]
    seen = [{one.key: one for one in finding.sightings} for finding in findings]
    # One that was removed since it was ranked is left out.
    pool = [
        (at.score, seen[at.place][at.key])
        for at in leading(offers, top_k, settings)
        if at.key in seen[at.place]
    ]
    return [pool[place] for place in distinct([one.passage.text for _, one in pool])]


def best_of(findings: Sequence[Finding], top_k: int, settings: SearchSettings) -> list[Passage]:
    """Return the `top_k` best passages of some findings, best first.

    They are those that a search in just these collections finds, with its scores, but for a
    reranker, which read the best of all that was searched. `settings` are those of the search.
    """
    kept = shortlist(findings, top_k, settings)
    if not kept:
        return []
    scores = [score for score, _ in kept]
    sighted = [kept[place][1] for place in reordered([one.verdict for _, one in kept])]
    vectors = np.stack([one.vector for one in sighted])
    chosen = diverse(scores, vectors, settings.relevance, top_k)
    return [replace(sighted[place].passage, score=scores[place]) for place in chosen]


def passage_of(collection: str, row: StoredPassage, bm25: float, similarity: float) -> Passage:
    """Return a stored passage with both its scores; its fused score is 0 until it is fused."""
    return Passage(
        passage_id=row.passage_id,
        document_id=row.document_id,
        collection=collection,
        title=row.title,
        url=row.url,
        text=row.text,
        start=row.start,
        end=row.end,
        score=0.0,
        similarity=similarity,
        bm25=bm25,
        license=row.license,
        lang=row.lang,
        file=row.file,
        page=row.page,
        line=row.line,
        sha256=row.sha256,
        added=row.added or None,
    )
