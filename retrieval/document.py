"""A document: what is put into a collection."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from retrieval.errors import InvalidDocument

MAX_ID_LENGTH = 512
"""Longest document id, in characters."""

MAX_TITLE = 300
"""Characters that count of a title, and of a path of headings: each passage is found by both."""

MAX_METADATA = 64
"""Most entries of a document's metadata."""

MAX_METADATA_TEXT = 1000
"""Longest text in a document's metadata, in characters."""

Scalar = str | int | float | bool
"""A value of a document's metadata."""

_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8}){0,4}")


class TextFormat(StrEnum):
    """How a document's text is cut.

    Text has paragraphs; Markdown has headings, lists, tables and code fences; the programming
    languages have functions and classes. `code` is any other language, cut at its blank lines.
    """

    TEXT = "text"
    MARKDOWN = "markdown"
    CODE = "code"
    C = "c"
    CPP = "cpp"
    C_SHARP = "c-sharp"
    GO = "go"
    JAVA = "java"
    JAVASCRIPT = "javascript"
    PHP = "php"
    PYTHON = "python"
    RUBY = "ruby"
    RUST = "rust"
    TSX = "tsx"
    TYPESCRIPT = "typescript"

    @property
    def is_code(self) -> bool:
        """Whether the text is a program's."""
        return self not in (TextFormat.TEXT, TextFormat.MARKDOWN)


@dataclass(frozen=True, slots=True)
class Document:
    """One text with its provenance. `id` is unique within a collection.

    `url`, `license` and `lang` (a BCP 47 tag) may be empty; `source` says where the text was found
    and `file` is the name of the file that held it. `metadata` are the user's own values to filter
    by. `pages` are pairs (offset of the page's first character, page number), ascending. `sha256`
    is that of the original bytes, in hexadecimal; without one the text itself is the original.
    `added` is when it was stored, in seconds since 1970, 0 where that is not known. Raises
    `InvalidDocument` where the id or the text is empty, or a field cannot be stored.
    """

    id: str
    title: str
    text: str
    url: str = ""
    license: str = ""
    source: str = ""
    format: TextFormat = TextFormat.TEXT
    lang: str = ""
    metadata: Mapping[str, Scalar] = field(default_factory=dict)
    file: str = ""
    pages: tuple[tuple[int, int], ...] = ()
    sha256: str = field(default="", compare=False)
    added: float = field(default=0.0, compare=False)

    def __post_init__(self) -> None:
        if not self.id or len(self.id) > MAX_ID_LENGTH:
            raise InvalidDocument(
                f"A document id has 1 to {MAX_ID_LENGTH} characters; this one has {len(self.id)}."
            )
        if not self.text.strip():
            raise InvalidDocument(f"Document {self.id!r} has no text.")
        for name in ("id", "title", "text", "url", "license", "source", "file"):
            _require_storable(self.id, name, getattr(self, name))
        if self.lang and not is_language(self.lang):
            raise InvalidDocument(
                f"Document {self.id!r} has the lang {self.lang!r}; "
                "a language tag like 'en' or 'pt-BR' was expected."
            )
        _require_metadata(self.id, self.metadata)
        _require_pages(self.id, self.pages, len(self.text))

    @property
    def digest(self) -> str:
        """SHA-256 over what the passages are made from, in hexadecimal.

        Equal digests mean that nothing has to be cut and encoded again.
        """
        fields: dict[str, object] = {
            name: getattr(self, name)
            for name in ("id", "title", "text", "url", "license", "source", "format")
        }
        # Only where they are given, so that digests written before they existed stay the same.
        more = {"lang": self.lang, "metadata": dict(self.metadata), "pages": self.pages}
        fields |= {name: value for name, value in more.items() if value}
        written = json.dumps(fields, sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(written.encode("ascii")).hexdigest()

    @property
    def original_sha256(self) -> str:
        """`sha256`, or that of the text in UTF-8 where it is the original."""
        return self.sha256 or hashlib.sha256(self.text.encode()).hexdigest()


def is_language(tag: str) -> bool:
    """Say whether `tag` looks like a BCP 47 language tag: `en`, `pt-BR`, `zh-Hant`."""
    return _LANGUAGE.fullmatch(tag) is not None


def checked_metadata(metadata: Mapping[str, object]) -> dict[str, Scalar]:
    """Return `metadata` if it can be stored with a document.

    Raises `InvalidDocument` naming the key at fault.
    """
    if len(metadata) > MAX_METADATA:
        raise InvalidDocument(f"Metadata has at most {MAX_METADATA} keys, not {len(metadata)}.")
    return {key: _checked_value(key, value) for key, value in metadata.items()}


def _checked_value(key: str, value: object) -> Scalar:
    if not isinstance(key, str) or not _KEY.fullmatch(key):
        raise InvalidDocument(
            f"{key!r} cannot be a key of metadata: use up to 64 letters, digits, '_', '-' and '.', "
            "beginning with a letter."
        )
    if not isinstance(value, str | int | float):
        raise InvalidDocument(
            f"Metadata {key!r} must be a string, a number, true or false, not {value!r}."
        )
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidDocument(f"Metadata {key!r} must be a finite number, not {value!r}.")
    if isinstance(value, int) and abs(value) >= 2**63:
        raise InvalidDocument(f"Metadata {key!r} must be a number of at most 63 bits.")
    if isinstance(value, str):
        _require_storable(key, "metadata", value)
        if len(value) > MAX_METADATA_TEXT:
            raise InvalidDocument(
                f"Metadata {key!r} has {len(value)} characters, at most {MAX_METADATA_TEXT} may be."
            )
    return value


def _require_metadata(document: str, metadata: Mapping[str, Scalar]) -> None:
    try:
        checked_metadata(metadata)
    except InvalidDocument as error:
        raise InvalidDocument(f"Document {document!r}: {error}") from error


def _require_pages(document: str, pages: Sequence[tuple[int, int]], length: int) -> None:
    offsets = [offset for offset, _ in pages]
    ascending = all(left < right for left, right in zip(offsets, offsets[1:], strict=False))
    if offsets and not (ascending and offsets[0] >= 0 and offsets[-1] < length):
        raise InvalidDocument(
            f"Document {document!r} has pages whose offsets do not ascend within its text."
        )


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
