"""What a search found in one collection, and how findings of several become passages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from retrieval.fusion import fuse
from retrieval.passage import Passage
from retrieval.schema import Vector
from retrieval.store import StoredPassage

NOTHING = -1.0


@dataclass(frozen=True, slots=True)
class Finding:
    """The best passages of a collection, best first, and its largest cosine with the query.

    The passage of that cosine need not be among them. An empty collection has `NOTHING`.
    """

    collection: str
    similarity: float
    passages: tuple[Passage, ...]


def best_of(findings: Sequence[Finding], top_k: int) -> list[Passage]:
    """Return the `top_k` best passages of several findings, best first.

    Those of one are as the search ranked them. Of several, their BM25 and their cosines are ranked
    anew and fused as a search does.
    """
    filled = [finding for finding in findings if finding.passages]
    if len(filled) == 1:
        return list(filled[0].passages[:top_k])
    found = [passage for finding in filled for passage in finding.passages]
    places = range(len(found))
    worded = [place for place in places if found[place].bm25 > 0.0]
    by_words = sorted(worded, key=lambda place: -found[place].bm25)
    by_meaning = sorted(places, key=lambda place: -found[place].similarity)
    ranked = fuse([by_words, by_meaning])[:top_k]
    return [replace(found[place], score=score) for place, score in ranked]


def passage_of(
    collection: str, row: StoredPassage, score: float, direction: Vector, bm25: float
) -> Passage:
    """Return a stored passage as a search found it; `direction` is the query's unit vector [d]."""
    return Passage(
        passage_id=row.passage_id,
        document_id=row.document_id,
        collection=collection,
        title=row.title,
        url=row.url,
        text=row.text,
        start=row.start,
        end=row.end,
        score=score,
        similarity=float(row.vector @ direction),
        bm25=bm25,
        license=row.license,
        lang=row.lang,
        file=row.file,
        page=row.page,
        line=row.line,
        sha256=row.sha256,
        added=row.added or None,
    )
