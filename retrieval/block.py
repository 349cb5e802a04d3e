"""A block: a span of a document that its structure holds together."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto


class BlockKind(Enum):
    """What a block is, and so where it may be cut: at sentences, items, or lines."""

    PROSE = auto()
    LIST = auto()
    TABLE = auto()
    CODE = auto()


@dataclass(frozen=True, slots=True)
class Block:
    """The span `text[start:end]` below the headings `heading`.

    A `title` is a heading itself: it begins a chunk unless only other titles stand before it in
    there. A block that `opens` always begins one. `follows`: it goes on with the list before it.
    """

    start: int
    end: int
    heading: tuple[str, ...] = ()
    kind: BlockKind = BlockKind.PROSE
    title: bool = False
    opens: bool = False
    follows: bool = False


def stripped(text: str, start: int, end: int) -> tuple[int, int]:
    """Return the span without white space at its ends."""
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return start, end
