"""A document: what is put into a collection."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from enum import StrEnum

from retrieval.errors import InvalidDocument

MAX_ID_LENGTH = 512
"""Longest document id, in characters."""


class TextFormat(StrEnum):
    """How a document's text is cut: Markdown has headings and code fences, text has paragraphs."""

    TEXT = "text"
    MARKDOWN = "markdown"


@dataclass(frozen=True, slots=True)
class Document:
    """One text with its provenance. `id` is unique within a collection.

    `url` and `license` may be empty; `source` says where the text was found. Raises
    `InvalidDocument` where the id or the text is empty, or not storable Unicode.
    """

    id: str
    title: str
    text: str
    url: str = ""
    license: str = ""
    source: str = ""
    format: TextFormat = TextFormat.TEXT

    def __post_init__(self) -> None:
        if not self.id or len(self.id) > MAX_ID_LENGTH:
            raise InvalidDocument(
                f"A document id has 1 to {MAX_ID_LENGTH} characters; this one has {len(self.id)}."
            )
        if not self.text.strip():
            raise InvalidDocument(f"Document {self.id!r} has no text.")
        for name in ("id", "title", "text", "url", "license", "source"):
            _require_storable(self.id, name, getattr(self, name))

    @property
    def digest(self) -> str:
        """SHA-256 over every field, in hexadecimal: equal digests mean nothing to do."""
        fields = json.dumps(asdict(self), sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(fields.encode("ascii")).hexdigest()


def _require_storable(document: str, name: str, value: str) -> None:
    if "\0" in value:
        raise InvalidDocument(f"Document {document!r} has a NUL character in its {name}.")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidDocument(
            f"Document {document!r} has a lone surrogate at position {error.start} of its {name}; "
            "decode the text as UTF-8 first."
        ) from error
