"""DOCX as Markdown: headings, paragraphs, lists and tables of the document's body.

Text that is deleted, or hidden in its own run, is left out; text that a style hides is not.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Iterator
from copy import copy
from io import BytesIO
from typing import TYPE_CHECKING

from retrieval.document import TextFormat, is_language
from retrieval.original import LARGEST_FILE, Original
from retrieval.readers.content import Content

if TYPE_CHECKING:
    from docx.document import Document as Word
    from lxml.etree import _Element

MOST_PARTS = 20_000
"""Files in the archive that a DOCX is."""

LARGEST_XML = 67_108_864
"""Bytes of the parts that are parsed."""

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_UNSEEN = (
    "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback",
    f"{_W}del",
    f"{_W}moveFrom",
)
_BREAKS = {f"{_W}tab": "\t", f"{_W}br": "\n", f"{_W}cr": "\n", f"{_W}noBreakHyphen": "-"}
_DEEPEST = 64
_PIECE = 1_048_576
# Byte order marks and white space; then "<", which is "L" to mainframes.
_BEFORE_MARKUP = b"\0\t\n\r \xef\xbb\xbf\xfe\xff"
_BEGINS_MARKUP = (b"", b"<", b"L")


def read_docx(original: Original) -> Iterator[Content]:
    """Yield a Word document as Markdown, with its title and language.

    Raises `UnreadableSource` for what is no DOCX, broken, or grows beyond all measure unpacked.
    """
    from docx import Document as open_word
    from docx.opc.exceptions import OpcError
    from lxml.etree import LxmlError

    data = original.read()
    _check_archive(original, data)
    broken: tuple[type[Exception], ...] = (
        *(OpcError, LxmlError, zipfile.BadZipFile, zlib.error, AttributeError, LookupError),
        *(NotImplementedError, OSError, RecursionError, TypeError, ValueError),
    )
    try:
        word = open_word(BytesIO(data))
        text = "\n\n".join(_Body(word).blocks())
        title, lang = word.core_properties.title or "", word.core_properties.language or ""
    except broken as error:
        raise original.unreadable(f"is a broken DOCX ({error or type(error).__name__})") from error
    if not text.strip():
        raise original.unreadable("has no text")
    yield Content(text, TextFormat.MARKDOWN, title.strip(), lang if is_language(lang) else "")


def _check_archive(original: Original, data: bytes) -> None:
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            fault = _fault(archive)
    except (
        *(zipfile.BadZipFile, zlib.error, struct.error, EOFError, LookupError),
        *(NotImplementedError, OSError, RuntimeError, ValueError),
    ) as error:
        raise original.unreadable(f"is a broken DOCX ({error or type(error).__name__})") from error
    if fault:
        raise original.unreadable(fault)


def _fault(archive: zipfile.ZipFile) -> str:
    parts = archive.infolist()
    if len(parts) > MOST_PARTS:
        return f"has {len(parts)} parts, at most {MOST_PARTS} may be"
    whole = sum(part.file_size for part in parts)
    xml = sum(part.file_size for part in parts if part.filename.endswith((".xml", ".rels")))
    if whole > LARGEST_FILE or xml > LARGEST_XML:
        return _too_large(whole, xml)
    xml = 0
    for part in parts:
        # Of other methods the standard library unpacks any amount at once.
        if part.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            return f"is a broken DOCX (its part {part.filename!r} is packed as in no DOCX)"
        size, is_markup = _unpacked(archive, part)
        if size != part.file_size:
            return f"is a broken DOCX (its part {part.filename!r} has another size than it says)"
        # Relationships tell which parts are parsed, not names: any part that could be counts.
        xml += size if is_markup else 0
        if xml > LARGEST_XML:
            return _too_large(whole, xml)
    return ""


def _unpacked(archive: zipfile.ZipFile, part: zipfile.ZipInfo) -> tuple[int, bool]:
    # One byte more than it says is let through: what has more would be cut off without a word.
    larger = copy(part)
    larger.file_size += 1
    size, lead = 0, b""
    with archive.open(larger) as opened:
        while piece := opened.read(_PIECE):
            lead = lead or piece.lstrip(_BEFORE_MARKUP)[:1]
            size += len(piece)
    return size, lead in _BEGINS_MARKUP


def _too_large(whole: int, xml: int) -> str:
    return (
        f"unpacks to {whole >> 20} MiB, {xml >> 20} of them XML; at most "
        f"{LARGEST_FILE >> 20} and {LARGEST_XML >> 20} may be"
    )


class _Body:
    """The blocks of a document's body, items of one list joined."""

    def __init__(self, word: Word) -> None:
        self._body: _Element = word.element.body
        self._levels = _heading_levels(word)
        self._lists = {
            style.get(f"{_W}styleId")
            for style in word.styles.element.iter(f"{_W}style")
            if style.find(f"{_W}pPr/{_W}numPr") is not None
        }

    def blocks(self) -> Iterator[str]:
        items: list[str] = []
        for element in _content(self._body, 0):
            item = self._item(element)
            if item:
                items.append(item)
                continue
            if items:
                yield "\n".join(items)
                items = []
            block = _table(element) if element.tag == f"{_W}tbl" else self._paragraph(element)
            if block:
                yield block
        if items:
            yield "\n".join(items)

    def _item(self, element: _Element) -> str:
        text = _text(element) if element.tag == f"{_W}p" else ""
        if not text or self._level(element) or not self._is_listed(element):
            return ""
        level = element.find(f"{_W}pPr/{_W}numPr/{_W}ilvl")
        depth = 0 if level is None else min(int(level.get(f"{_W}val") or 0), 5)
        return "  " * depth + "- " + " ".join(text.split())

    def _paragraph(self, element: _Element) -> str:
        text, level = _text(element), self._level(element)
        if level and text:
            return f"{'#' * level} {' '.join(text.split())}"
        return text

    def _is_listed(self, element: _Element) -> bool:
        numbered = element.find(f"{_W}pPr/{_W}numPr") is not None
        return numbered or _style(element) in self._lists

    def _level(self, element: _Element) -> int:
        return self._levels.get(_style(element), 0)


def _style(element: _Element) -> str:
    style = element.find(f"{_W}pPr/{_W}pStyle")
    return "" if style is None else style.get(f"{_W}val") or ""


def _heading_levels(word: Word) -> dict[str, int]:
    """The level of each style that is a heading, by its id: by its outline level or its name."""
    levels: dict[str, int] = {}
    for style in word.styles.element.iter(f"{_W}style"):
        name = style.find(f"{_W}name")
        words = ("" if name is None else name.get(f"{_W}val") or "").lower().split()
        outline = style.find(f"{_W}pPr/{_W}outlineLvl")
        if words == ["title"]:
            level = 1
        elif len(words) == 2 and words[0] == "heading" and words[1].isdecimal():
            level = int(words[1])
        elif outline is not None:
            level = int(outline.get(f"{_W}val") or 9) + 1
        else:
            continue
        if 1 <= level <= 9:
            levels[style.get(f"{_W}styleId") or ""] = min(level, 6)
    return levels


def _content(parent: _Element, depth: int) -> Iterator[_Element]:
    """Paragraphs and tables in order; controls, insertions and the like are looked into."""
    for child in parent:
        if child.tag in (f"{_W}p", f"{_W}tbl"):
            yield child
        elif depth < _DEEPEST and child.tag not in _UNSEEN:
            yield from _content(child, depth + 1)


def _text(element: _Element) -> str:
    pieces = []
    for part in element.iter(f"{_W}t", *_BREAKS):
        hidden = any(map(_is_hidden, part.iterancestors(f"{_W}r")))
        if not hidden and next(part.iterancestors(*_UNSEEN), None) is None:
            pieces.append(_BREAKS.get(str(part.tag), part.text or ""))
    return "".join(pieces).strip()


def _is_hidden(run: _Element) -> bool:
    vanish = run.find(f"{_W}rPr/{_W}vanish")
    return vanish is not None and vanish.get(f"{_W}val") not in ("0", "false", "off")


def _table(element: _Element) -> str:
    rows = []
    for row in element.iterchildren(f"{_W}tr"):
        cells = [" ".join(_text(cell).split()) for cell in row.iterchildren(f"{_W}tc")]
        rows.append([cell.replace("|", "\\|") for cell in cells])
    rows = [row for row in rows if any(row)]
    if not rows:
        return ""
    # Short rows stay short: filled up to one wide row, they would cost its width each.
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|" + " --- |" * len(rows[0]))
    return "\n".join(lines)
