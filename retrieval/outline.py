"""The structure of running text: paragraphs; in Markdown headings, lists, tables and fences."""

from __future__ import annotations

import re
from collections.abc import Iterator

from retrieval.block import Block, BlockKind
from retrieval.document import MAX_TITLE

ITEM = re.compile(r"[ \t]{0,3}(?:[-*+•]|\d{1,9}[.)])[ \t]")
"""The beginning of a list item that is not nested in another."""

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_HEADING = re.compile(r" {0,3}(#{1,6})[ \t]+(.*)")
_TABLE = re.compile(r" {0,3}\|")
_CONTINUED = re.compile(r"[ \t]{2,}\S")


def paragraphs(text: str, start: int, end: int) -> Iterator[Block]:
    """Yield the paragraphs of `text[start:end]`: what blank lines part."""
    opened: int | None = None
    closed = start
    for left, right in lines(text, start, end):
        if text[left:right].isspace():
            if opened is not None:
                yield Block(opened, closed)
            opened = None
            continue
        opened = left if opened is None else opened
        closed = right
    if opened is not None:
        yield Block(opened, closed)


def sections(text: str, start: int, end: int) -> Iterator[Block]:
    """Yield the blocks of Markdown in `text[start:end]`, each with the headings above it."""
    path: dict[int, str] = {}
    for left, right, is_code in _fenced_parts(text, start, end):
        if is_code:
            yield Block(left, right, tuple(path.values()), BlockKind.CODE)
        else:
            yield from _prose(text, left, right, path)


def top_headings(text: str) -> Iterator[str]:
    """Yield the headings of the first level of a Markdown text; code holds none."""
    for left, right, is_code in _fenced_parts(text, 0, len(text)):
        for line in () if is_code else text[left:right].splitlines():
            heading = _HEADING.match(line)
            if heading and len(heading[1]) == 1:
                yield _unclosed(heading[2])[:MAX_TITLE]


def lines(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield the lines of `text[start:end]` with their line feeds."""
    while start < end:
        stop = min(text.find("\n", start, end) + 1 or end, end)
        yield start, stop
        start = stop


def _fenced_parts(text: str, start: int, end: int) -> Iterator[tuple[int, int, bool]]:
    opened = start
    fence = ""
    for left, right in lines(text, start, end):
        match = _FENCE.match(text, left, right)
        run = match[1] if match else ""
        if not fence and run:
            yield opened, left, False
            opened, fence = left, run
        elif fence and run[:1] == fence[0] and len(run) >= len(fence):
            yield opened, right, True
            opened, fence = right, ""
    yield opened, end, bool(fence)


def _prose(text: str, start: int, end: int, path: dict[int, str]) -> Iterator[Block]:
    left = position = start
    before: Block | None = None
    for line in text[start:end].splitlines(keepends=True):
        heading = _HEADING.match(line.rstrip("\r\n"))
        if heading or line.isspace():
            if text[left:position].strip():
                before = _paragraph(text, left, position, path, before)
                yield before
            left = position + len(line)
        if heading:
            level = len(heading[1])
            for deeper in [known for known in path if known >= level]:
                del path[deeper]
            path[level] = _unclosed(heading[2])[:MAX_TITLE]
            before = Block(position, left, tuple(path.values()), title=True)
            yield before
        position += len(line)
    if text[left:end].strip():
        yield _paragraph(text, left, end, path, before)


def _unclosed(heading: str) -> str:
    # "Usage ##" is "Usage". A pattern for it would try every run of spaces at each of its places.
    return heading.rstrip(" \t").rstrip("#").rstrip(" \t")


def _paragraph(
    text: str, start: int, end: int, path: dict[int, str], before: Block | None
) -> Block:
    in_list = before is not None and before.kind is BlockKind.LIST
    if ITEM.match(text, start, end):
        kind = BlockKind.LIST
    elif in_list and _CONTINUED.match(text, start, end):
        kind = BlockKind.LIST
    else:
        kind = BlockKind.TABLE if _TABLE.match(text, start, end) else BlockKind.PROSE
    follows = in_list and kind is BlockKind.LIST
    return Block(start, end, tuple(path.values()), kind, follows=follows)
