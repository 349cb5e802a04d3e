"""A passage: a piece of a document, found by a search, with its provenance."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Passage:
    """One search result. `start` and `end` are offsets (code points) into the document's text.

    `score` is the fused rank score in 0..1 (1: first by words and first by meaning),
    `similarity` the cosine of query and passage in -1..1, `bm25` the word score (0 where no
    word of the query occurs). `passage_id` is unique within its collection.

    `file` is the name of the file that held the document, `page` the page that the passage lies on,
    `line` the line of the document's text where it begins (both from 1, None where not known),
    `sha256` the hash of the original bytes, `added` the time of storing in seconds since 1970.
    """

    passage_id: str
    document_id: str
    collection: str
    title: str
    url: str
    text: str
    start: int
    end: int
    score: float
    similarity: float
    bm25: float
    license: str = ""
    lang: str = ""
    file: str = ""
    page: int | None = None
    line: int | None = None
    sha256: str = ""
    added: float | None = None
