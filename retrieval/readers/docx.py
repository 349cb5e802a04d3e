"""DOCX as Markdown: headings, paragraphs, lists and tables of the document's body."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
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
        *(NotImplementedError, OSError, TypeError, ValueError),
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
            parts = archive.infolist()
            if len(parts) > MOST_PARTS:
                raise original.unreadable(f"has {len(parts)} parts, at most {MOST_PARTS} may be")
            _check_sizes(original, parts)
            # Also proves the declared sizes: what unpacks to more than it says is damaged.
            damaged = archive.testzip()
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError) as error:
        raise original.unreadable(f"is a broken DOCX ({error})") from error
    if damaged is not None:
        raise original.unreadable(f"is a broken DOCX (its part {damaged!r} is damaged)")


def _check_sizes(original: Original, parts: list[zipfile.ZipInfo]) -> None:
    xml = sum(part.file_size for part in parts if part.filename.endswith((".xml", ".rels")))
    whole = sum(part.file_size for part in parts)
    if xml > LARGEST_XML or whole > LARGEST_FILE:
        raise original.unreadable(
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
        if next(part.iterancestors(*_UNSEEN), None) is None:
            pieces.append(_BREAKS.get(str(part.tag), part.text or ""))
    return "".join(pieces).strip()


def _table(element: _Element) -> str:
    rows = []
    for row in element.iterchildren(f"{_W}tr"):
        cells = [" ".join(_text(cell).split()) for cell in row.iterchildren(f"{_W}tc")]
        rows.append([cell.replace("|", "\\|") for cell in cells])
    rows = [row for row in rows if any(row)]
    if not rows:
        return ""
    width = max(len(row) for row in rows)
    lines = ["| " + " | ".join(row + [""] * (width - len(row))) + " |" for row in rows]
    lines.insert(1, "|" + " --- |" * width)
    return "\n".join(lines)
