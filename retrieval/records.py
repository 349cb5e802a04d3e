"""Documents as rows of a collection's file, and back."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

from retrieval.document import Document, TextFormat
from retrieval.schema import SEGMENT

PASSAGE_TEXT = (
    f"(SELECT substr(group_concat(text, ''), p.start % {SEGMENT} + 1, p.end - p.start) "
    "FROM (SELECT text FROM texts WHERE document = p.document "
    f"AND number BETWEEN p.start / {SEGMENT} AND (p.end - 1) / {SEGMENT} ORDER BY number))"
)
"""SQL for the text of the passage `p`."""

_FIELDS = (
    *("id", "title", "url", "license", "source", "format", "lang", "metadata", "file"),
    *("pages", "sha256", "added"),
)
_TEXT = (
    "(SELECT group_concat(text, '') FROM "
    "(SELECT text FROM texts WHERE document = d.key ORDER BY number))"
)

DOCUMENT = ", ".join((*(f"d.{name}" for name in _FIELDS), _TEXT))
"""SQL for the columns of the document `d`, as `document_of` reads them."""


def document_of(row: Sequence[Any]) -> Document:
    """Read the columns `DOCUMENT`."""
    fields = dict(zip((*_FIELDS, "text"), row, strict=True))
    fields["format"] = TextFormat(fields["format"])
    fields["metadata"] = json.loads(fields["metadata"])
    fields["pages"] = tuple((offset, page) for offset, page in json.loads(fields["pages"]))
    return Document(**fields)


def document_row(document: Document) -> dict[str, str | float]:
    """Return the columns of a document that is stored now, but for its text."""
    return {
        "id": document.id,
        "digest": document.digest,
        "title": document.title,
        "url": document.url,
        "license": document.license,
        "source": document.source,
        "format": document.format.value,
        "lang": document.lang,
        "metadata": json.dumps(dict(document.metadata), sort_keys=True, ensure_ascii=False),
        "file": document.file,
        "sha256": document.original_sha256,
        "pages": json.dumps(document.pages),
        "added": document.added or time.time(),
    }
