"""PDF: the text of each page, with the offset where the page begins."""

from __future__ import annotations

import struct
import time
import zlib
from collections.abc import Iterator
from io import BytesIO
from typing import TYPE_CHECKING

from retrieval.document import TextFormat, is_language
from retrieval.errors import UnreadableSource
from retrieval.original import Original
from retrieval.readers.content import Content

if TYPE_CHECKING:
    from pypdf import PdfReader

MOST_CHARACTERS = 100_000_000
"""Characters of a PDF; one with more was made to exhaust its reader."""

MOST_PAGES = 20_000
LONGEST_S = 300.0
"""Seconds after which reading is given up, between pages: one thread reads all that is uploaded."""

_BETWEEN = "\n\n"


def read_pdf(original: Original) -> Iterator[Content]:
    """Yield the text of a PDF with its pages.

    Raises `UnreadableSource` for what is encrypted, broken, or has no text (scanned pages).
    """
    from pypdf import PdfReader
    from pypdf.errors import PyPdfError

    data = original.read()
    # A broken file makes pypdf fail in all these ways, not only in those it names.
    broken: tuple[type[Exception], ...] = (
        *(PyPdfError, ArithmeticError, AssertionError, AttributeError, EOFError, LookupError),
        *(NotImplementedError, OSError, RecursionError, TypeError, ValueError),
        *(struct.error, zlib.error),
    )
    try:
        reader = PdfReader(BytesIO(data))
        _unlock(original, reader)
        text, pages = _pages(original, reader)
        title, lang = _title(reader), _language(reader)
    except UnreadableSource:
        raise
    except broken as error:
        raise original.unreadable(f"is a broken PDF ({error or type(error).__name__})") from error
    if not text.strip():
        raise original.unreadable(
            "has no text; if its pages are scanned, recognise their text first, "
            "for example with ocrmypdf"
        )
    yield Content(text, TextFormat.TEXT, title, lang, pages)


def _unlock(original: Original, reader: PdfReader) -> None:
    from pypdf.errors import DependencyError

    if not reader.is_encrypted:
        return
    try:
        # Many files are encrypted with an empty password, to forbid printing.
        opened = bool(reader.decrypt(""))
    except (DependencyError, NotImplementedError) as error:
        raise original.unreadable(f"is encrypted in a way that cannot be read: {error}") from error
    if not opened:
        raise original.unreadable("is encrypted; remove its password first")


def _pages(original: Original, reader: PdfReader) -> tuple[str, tuple[tuple[int, int], ...]]:
    parts: list[str] = []
    pages: list[tuple[int, int]] = []
    length = 0
    until = time.monotonic() + LONGEST_S
    if len(reader.pages) > MOST_PAGES:
        raise original.unreadable(f"has more than {MOST_PAGES} pages; split it")
    for number, page in enumerate(reader.pages, start=1):
        text = _storable(page.extract_text())
        if text.strip():
            if parts:
                parts.append(_BETWEEN)
                length += len(_BETWEEN)
            pages.append((length, number))
            parts.append(text)
            length += len(text)
        if length > MOST_CHARACTERS:
            raise original.unreadable(f"has more than {MOST_CHARACTERS} characters of text")
        if time.monotonic() > until:
            raise original.unreadable(f"takes more than {LONGEST_S:.0f} s to read; split it")
    return "".join(parts), tuple(pages)


def _storable(text: str) -> str:
    # Fonts without a map to Unicode give halves of characters.
    return text.replace("\0", "").encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _title(reader: PdfReader) -> str:
    title = reader.metadata.title if reader.metadata else None
    return " ".join(_storable(title).split()) if isinstance(title, str) else ""


def _language(reader: PdfReader) -> str:
    said = str(reader.root_object.get("/Lang") or "").strip()
    return said if is_language(said) else ""
