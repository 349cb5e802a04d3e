"""A search: candidates of every collection, and those of them that may be among the best."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import replace

import numpy as np

from retrieval.candidates import Candidates, contenders
from retrieval.collection import Collection
from retrieval.finding import Finding, Sighting, best_of, leading, passage_of, shortlist
from retrieval.passage import Passage
from retrieval.question import Question
from retrieval.reranking import RERANKED, Reranker, judged
from retrieval.search_settings import SearchSettings

_NO_VECTOR = np.empty(0, dtype=np.float32)


def find(
    collections: Sequence[Collection],
    question: Question,
    top_k: int,
    settings: SearchSettings,
    reranker: Reranker | None = None,
) -> list[Passage]:
    """Return the `top_k` best passages of some collections, best first."""
    offers = _offers(collections, question, settings, top_k)
    if not offers:
        return []
    top = leading(offers, top_k, settings)
    wanted = [{at.key for at in top if at.place == place} for place in range(len(offers))]
    findings = _findings(collections, offers, wanted, settings)
    return best_of(_read(findings, question, top_k, settings, reranker), top_k, settings)


def survey(
    collections: Sequence[Collection],
    question: Question,
    top_k: int,
    settings: SearchSettings,
    reranker: Reranker | None = None,
) -> list[Finding]:
    """Return what each collection offers, enough for `best_of` any of them."""
    offers = _offers(collections, question, settings, top_k)
    count, weight = settings.pool(top_k), settings.dense_weight
    wanted = [contenders(offer, offers, settings.fusion, weight, count) for offer in offers]
    findings = _findings(collections, offers, wanted, settings)
    return _read(findings, question, top_k, settings, reranker)


def _offers(
    collections: Sequence[Collection], question: Question, settings: SearchSettings, top_k: int
) -> list[Candidates]:
    asked = question.words, question.vector, settings.depth(top_k), question.condition
    offers = [replace(collection.rank(*asked), reads=question.reads) for collection in collections]
    return [replace(offer, weight=None) for offer in offers] if settings.alike else offers


def _findings(
    collections: Sequence[Collection],
    offers: Sequence[Candidates],
    wanted: Sequence[Set[int]],
    settings: SearchSettings,
) -> list[Finding]:
    likeness = settings.relevance < 1.0
    return [
        Finding(collection.name, offer, _sightings(collection, offer, keys, likeness))
        for collection, offer, keys in zip(collections, offers, wanted, strict=True)
    ]


def _sightings(
    collection: Collection, offer: Candidates, wanted: Set[int], likeness: bool
) -> tuple[Sighting, ...]:
    keys = [key for key in offer.keys if key in wanted]
    rows = collection.passages(keys) if keys else {}
    scores = zip(offer.keys, offer.bm25.tolist(), offer.similarity.tolist(), strict=True)
    return tuple(
        Sighting(
            key,
            passage_of(collection.name, rows[key], bm25, similarity),
            rows[key].vector if likeness else _NO_VECTOR,
        )
        for key, bm25, similarity in scores
        if key in rows
    )


def _read(
    findings: Sequence[Finding],
    question: Question,
    top_k: int,
    settings: SearchSettings,
    reranker: Reranker | None,
) -> list[Finding]:
    if reranker is None:
        return list(findings)
    # However many collections there are, it reads the best of all and no more.
    best = [one.passage for _, one in shortlist(findings, top_k, settings)[:RERANKED]]
    names = [(passage.collection, passage.passage_id) for passage in best]
    verdicts = dict(zip(names, judged(reranker, question.text, best), strict=True))
    return [
        replace(
            finding,
            sightings=tuple(
                replace(one, verdict=verdicts.get((finding.collection, one.passage.passage_id)))
                for one in finding.sightings
            ),
        )
        for finding in findings
    ]
