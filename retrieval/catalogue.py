"""The catalogue of a collection: its documents without their texts, a page at a time."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass

from retrieval.document import Scalar, TextFormat


@dataclass(frozen=True, slots=True)
class DocumentInfo:
    """A stored document; see `retrieval.document.Document`. `pages` and `passages` are numbers."""

    id: str
    title: str
    url: str
    license: str
    source: str
    format: TextFormat
    lang: str
    metadata: Mapping[str, Scalar]
    file: str
    sha256: str
    added: float
    pages: int
    passages: int


def catalogue(connection: sqlite3.Connection, limit: int, after: str) -> list[DocumentInfo]:
    """Return up to `limit` documents by their ids, those behind the id `after`."""
    rows = connection.execute(
        "SELECT id, title, url, license, source, format, lang, metadata, file, sha256, added, "
        "json_array_length(pages), "
        "(SELECT count(*) FROM passages WHERE document = documents.key) "
        "FROM documents WHERE id > ? ORDER BY id LIMIT ?",
        (after, limit),
    ).fetchall()
    return [
        DocumentInfo(*(*row[:5], TextFormat(row[5]), row[6], json.loads(row[7]), *row[8:]))
        for row in rows
    ]
