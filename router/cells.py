"""Figures as they stand in a Markdown page: numbers, intervals, tables."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Figures = Mapping[str, Any]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def number(value: float | None, digits: int = 3) -> str:
    """Return a figure with so many digits behind the point; a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}"


def interval(value: Figures | None, digits: int = 3) -> str:
    """Return a figure with its 95 % interval."""
    if value is None:
        return "–"
    ends = f"[{number(value['low'], digits)}, {number(value['high'], digits)}]"
    return f"{number(value['value'], digits)} {ends}"
