"""Documents cut into passages along their structure, so that each can stand for itself.

A chunk is a contiguous span of its document, so `text[start:end]` is the chunk, character for
character. Chunks do not overlap, and together hold everything but white space. Paragraphs, lists,
tables and functions stay whole where they fit, sentences and lines where they do not. In Markdown
a heading opens a new chunk, in code a function or class does, and the path of headings or names is
kept as context. A chunk lies on one page.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from retrieval.block import Block, BlockKind, stripped
from retrieval.document import MAX_TITLE, TextFormat
from retrieval.outline import ITEM, lines, paragraphs, sections
from retrieval.program import definitions
from retrieval.sentences import sentence_spans

CHUNK_WEIGHT = 720
"""Largest weight of a chunk: about 180 tokens, so that title and headings still fit the encoder."""

_HEADING_SEPARATOR = " › "
_NAME_SEPARATOR = "."


@dataclass(frozen=True, slots=True)
class Chunk:
    """A span of a document: `text` is the document's `text[start:end]`.

    `heading` is the path of Markdown headings above it ("Guide › Install"), or the qualified name
    of the function or class ("Shelf.sort"), "" without any; at most `MAX_TITLE` characters of it.
    `line` counts from 1; `page` is None where the document has no pages.
    """

    text: str
    start: int
    end: int
    heading: str
    page: int | None = None
    line: int = 1


def chunk(
    text: str,
    format: TextFormat = TextFormat.TEXT,
    max_weight: int = CHUNK_WEIGHT,
    pages: Sequence[tuple[int, int]] = (),
) -> list[Chunk]:
    """Cut `text` into chunks in order; none weighs more than `max_weight`.

    The weight of a text is its length with wide (Chinese, Japanese, Korean) characters counted
    four times and other non-Latin ones twice, which follows the tokens an encoder makes of it.
    `pages` are pairs (offset, page number), ascending.
    """
    if max_weight < 8:
        raise ValueError(f"max_weight must be at least 8, not {max_weight}.")
    separator = _NAME_SEPARATOR if format.is_code else _HEADING_SEPARATOR
    chunks: list[Chunk] = []
    line, counted = 1, 0
    for first, last, page in _page_spans(text, pages):
        blocks = _grouped(text, _blocks(text, first, last, format, max_weight), max_weight)
        for start, end, heading in _packed(text, blocks, max_weight):
            line += text.count("\n", counted, start)
            counted = start
            title = separator.join(heading)[:MAX_TITLE]
            chunks.append(Chunk(text[start:end], start, end, title, page, line))
    return chunks


def weight(text: str) -> int:
    """Return the weight of `text` as `chunk` counts it."""
    if text.isascii():
        return len(text)
    return sum(_character_weight(character) for character in text)


def _character_weight(character: str) -> int:
    if character < "\u0250":
        return 1
    return 4 if unicodedata.east_asian_width(character) in "WF" else 2


def _fits(text: str, start: int, end: int, limit: int) -> bool:
    # No character weighs less than 1, so that a long span need not be weighed.
    return end - start <= limit and weight(text[start:end]) <= limit


def _page_spans(
    text: str, pages: Sequence[tuple[int, int]]
) -> Iterator[tuple[int, int, int | None]]:
    if not pages:
        yield 0, len(text), None
        return
    if pages[0][0] > 0:
        yield 0, pages[0][0], None
    ends = [*(offset for offset, _ in pages[1:]), len(text)]
    for (start, number), end in zip(pages, ends, strict=True):
        yield start, end, number


def _blocks(text: str, start: int, end: int, format: TextFormat, limit: int) -> Iterator[Block]:
    if format.is_code:
        return definitions(text, start, end, format, limit)
    cut = sections if format is TextFormat.MARKDOWN else paragraphs
    return cut(text, start, end)


def _grouped(text: str, blocks: Iterator[Block], limit: int) -> Iterator[Block]:
    """Join the items of a list that blank lines part, where the list fits whole."""
    group: list[Block] = []
    for block in blocks:
        if group and not block.follows:
            yield from _joined(text, group, limit)
            group = []
        group.append(block)
    yield from _joined(text, group, limit)


def _joined(text: str, group: list[Block], limit: int) -> Sequence[Block]:
    if len(group) > 1 and _fits(text, group[0].start, group[-1].end, limit):
        return [replace(group[0], end=group[-1].end)]
    return group


def _packed(
    text: str, blocks: Iterator[Block], limit: int
) -> Iterator[tuple[int, int, tuple[str, ...]]]:
    start = end = 0
    heading: tuple[str, ...] = ()
    titles_only = False
    for block in blocks:
        opens = block.opens
        for left, right in _pieces(text, block, limit):
            begins = opens or (block.title and not titles_only)
            if end > start and (begins or not _fits(text, start, right, limit)):
                yield start, end, heading
                start = end
            if end == start:
                start, titles_only = left, True
            end, heading, opens = right, block.heading, False
            titles_only = titles_only and block.title
    if end > start:
        yield start, end, heading


def _pieces(text: str, block: Block, limit: int) -> Iterator[tuple[int, int]]:
    start, end = stripped(text, block.start, block.end)
    if start == end:
        return
    if _fits(text, start, end, limit):
        yield start, end
        return
    for left, right in _parts(text, start, end, block.kind, limit):
        yield from _split_long(text, left, right, limit)


def _parts(
    text: str, start: int, end: int, kind: BlockKind, limit: int
) -> Iterator[tuple[int, int]]:
    if kind is BlockKind.PROSE:
        yield from sentence_spans(text, start, end)
    elif kind is BlockKind.LIST:
        for left, right in _items(text, start, end):
            whole = _fits(text, left, right, limit)
            yield from ((left, right),) if whole else sentence_spans(text, left, right)
    else:
        for left, right in lines(text, start, end):
            left, right = stripped(text, left, right)
            if left < right:
                yield left, right


def _items(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    opened = start
    for left, _ in lines(text, start, end):
        if left > opened and ITEM.match(text, left, end):
            yield stripped(text, opened, left)
            opened = left
    yield stripped(text, opened, end)


def _split_long(text: str, start: int, end: int, limit: int) -> Iterator[tuple[int, int]]:
    while not _fits(text, start, end, limit):
        cut = _cut(text, start, end, limit)
        yield stripped(text, start, cut)
        start, _ = stripped(text, cut, end)
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
    # A base character keeps its combining marks, unless there is nothing else.
    whole = cut
    while whole > start + 1 and unicodedata.combining(text[whole]):
        whole -= 1
    return whole if whole > start + 1 else cut
