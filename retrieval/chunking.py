"""Documents cut into passages: whole paragraphs where they fit, whole sentences where not.

A chunk is a contiguous span of its document, so `text[start:end]` is the chunk, character for
character. Chunks do not overlap, and together hold everything but white space. In Markdown
a heading opens a new chunk and the path of headings is kept as context.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from retrieval.document import TextFormat
from retrieval.sentences import sentence_spans

CHUNK_WEIGHT = 720
"""Largest weight of a chunk: about 180 tokens, so that title and headings still fit the encoder."""

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_HEADING = re.compile(r" {0,3}(#{1,6})[ \t]+(.*?)[ \t]*#*[ \t]*$")
_HEADING_SEPARATOR = " › "


@dataclass(frozen=True, slots=True)
class Chunk:
    """A span of a document: `text` is the document's `text[start:end]`.

    `heading` is the path of Markdown headings above it ("Guide › Install"), "" without any.
    """

    text: str
    start: int
    end: int
    heading: str


@dataclass(frozen=True, slots=True)
class _Block:
    start: int
    end: int
    heading: tuple[str, ...]
    is_heading: bool = False
    is_code: bool = False


def chunk(
    text: str, format: TextFormat = TextFormat.TEXT, max_weight: int = CHUNK_WEIGHT
) -> list[Chunk]:
    """Cut `text` into chunks in order; none weighs more than `max_weight`.

    The weight of a text is its length with wide (Chinese, Japanese, Korean) characters counted
    four times and other non-Latin ones twice, which follows the tokens an encoder makes of it.
    """
    if max_weight < 8:
        raise ValueError(f"max_weight must be at least 8, not {max_weight}.")
    blocks = _markdown_blocks(text) if format is TextFormat.MARKDOWN else _paragraphs(text)
    return [
        Chunk(text[start:end], start, end, _HEADING_SEPARATOR.join(heading))
        for start, end, heading in _packed(text, blocks, max_weight)
    ]


def weight(text: str) -> int:
    """Return the weight of `text` as `chunk` counts it."""
    if text.isascii():
        return len(text)
    return sum(_character_weight(character) for character in text)


def _character_weight(character: str) -> int:
    if character < "\u0250":
        return 1
    return 4 if unicodedata.east_asian_width(character) in "WF" else 2


def _lines(text: str) -> Iterator[tuple[int, int]]:
    start = 0
    while start < len(text):
        end = text.find("\n", start) + 1 or len(text)
        yield start, end
        start = end


def _paragraphs(text: str) -> Iterator[_Block]:
    opened: int | None = None
    closed = 0
    for start, end in _lines(text):
        if text[start:end].isspace():
            if opened is not None:
                yield _Block(opened, closed, ())
            opened = None
            continue
        opened = start if opened is None else opened
        closed = end
    if opened is not None:
        yield _Block(opened, closed, ())


def _markdown_blocks(text: str) -> Iterator[_Block]:
    path: dict[int, str] = {}
    for start, end, is_code in _fenced_parts(text):
        if is_code:
            yield _Block(start, end, tuple(path.values()), is_code=True)
        else:
            yield from _prose_blocks(text, start, end, path)


def _fenced_parts(text: str) -> Iterator[tuple[int, int, bool]]:
    opened = 0
    fence = ""
    for start, end in _lines(text):
        match = _FENCE.match(text, start, end)
        run = match[1] if match else ""
        if not fence and run:
            yield opened, start, False
            opened, fence = start, run
        elif fence and run[:1] == fence[0] and len(run) >= len(fence):
            yield opened, end, True
            opened, fence = end, ""
    yield opened, len(text), bool(fence)


def _prose_blocks(text: str, start: int, end: int, path: dict[int, str]) -> Iterator[_Block]:
    left = start
    position = start
    for line in text[start:end].splitlines(keepends=True):
        heading = _HEADING.match(line.rstrip("\r\n"))
        if heading or line.isspace():
            if text[left:position].strip():
                yield _Block(left, position, tuple(path.values()))
            left = position + len(line)
        if heading:
            level = len(heading[1])
            for deeper in [known for known in path if known >= level]:
                del path[deeper]
            path[level] = heading[2]
            yield _Block(position, left, tuple(path.values()), is_heading=True)
        position += len(line)
    if text[left:end].strip():
        yield _Block(left, end, tuple(path.values()))


def _packed(
    text: str, blocks: Iterator[_Block], limit: int
) -> Iterator[tuple[int, int, tuple[str, ...]]]:
    start = end = 0
    heading: tuple[str, ...] = ()
    titles_only = False
    for block in blocks:
        for left, right in _pieces(text, block, limit):
            opens_section = block.is_heading and not titles_only
            if end > start and (opens_section or weight(text[start:right]) > limit):
                yield start, end, heading
                start = end
            if end == start:
                start, titles_only = left, True
            end, heading = right, block.heading
            titles_only = titles_only and block.is_heading
    if end > start:
        yield start, end, heading


def _pieces(text: str, block: _Block, limit: int) -> Iterator[tuple[int, int]]:
    start, end = _stripped(text, block.start, block.end)
    if start == end:
        return
    if weight(text[start:end]) <= limit:
        yield start, end
        return
    parts = _code_lines(text, start, end) if block.is_code else sentence_spans(text, start, end)
    for left, right in parts:
        yield from _split_long(text, left, right, limit)


def _code_lines(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    position = start
    for line in text[start:end].splitlines(keepends=True):
        left, right = _stripped(text, position, position + len(line))
        if left < right:
            yield left, right
        position += len(line)


def _split_long(text: str, start: int, end: int, limit: int) -> Iterator[tuple[int, int]]:
    while weight(text[start:end]) > limit:
        cut = _cut(text, start, end, limit)
        yield _stripped(text, start, cut)
        start, _ = _stripped(text, cut, end)
    if start < end:
        yield start, end


def _cut(text: str, start: int, end: int, limit: int) -> int:
    carried = 0
    cut = start
    while cut < end:
        carried += _character_weight(text[cut])
        if carried > limit:
            break
        cut += 1
    space = max(text.rfind(" ", start + 1, cut), text.rfind("\n", start + 1, cut))
    if space > start + (cut - start) // 2:
        return space
    # A base character keeps its combining marks.
    while cut > start + 1 and unicodedata.combining(text[cut]):
        cut -= 1
    return cut


def _stripped(text: str, start: int, end: int) -> tuple[int, int]:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return start, end
