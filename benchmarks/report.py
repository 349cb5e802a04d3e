"""What a section of the benchmark found: rows with goals, as a table and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.measure import Spread


@dataclass(frozen=True)
class Goal:
    """What a measure has to reach."""

    limit: float
    at_most: bool = True

    def __str__(self) -> str:
        return f"{'≤' if self.at_most else '≥'} {self.limit:g}"

    def verdict(self, value: Spread) -> str:
        """`yes` when the bad end of the interval reaches it too, `median` when only that does."""
        ends = (value.median, value.high if self.at_most else value.low)
        reached = [end <= self.limit if self.at_most else end >= self.limit for end in ends]
        if all(reached):
            found = "yes"
        elif reached[0]:
            found = "median"
        else:
            found = "no"
        return found


@dataclass(frozen=True)
class Row:
    """One measure: a ratio (×) unless `unit` says otherwise."""

    measure: str
    value: Spread
    goal: Goal | None = None
    unit: str = "×"
    detail: str = ""

    @property
    def verdict(self) -> str:
        """Whether the goal is reached; empty without one."""
        return self.goal.verdict(self.value) if self.goal else ""


@dataclass(frozen=True)
class Section:
    """The rows of one section with remarks that belong to them."""

    name: str
    rows: Sequence[Row]
    notes: Sequence[str] = field(default_factory=tuple)


def show(section: Section, console: Console) -> None:
    """Print a section as a table."""
    table = Table(title=section.name, title_justify="left")
    for name in ("measure", "median", "95 % interval", "goal", "reached", "detail"):
        table.add_column(name)
    for row in section.rows:
        value = row.value
        table.add_row(
            row.measure,
            f"{value.median:.3g} {row.unit}",
            f"{value.low:.3g} – {value.high:.3g} (n={value.count})",
            str(row.goal or ""),
            row.verdict,
            row.detail,
        )
    console.print(table)
    for note in section.notes:
        console.print(note, highlight=False)


def save(path: Path, sections: Sequence[Section], circumstances: dict[str, Any]) -> None:
    """Write sections into a results file; sections that were measured earlier stay in it."""
    body = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    for section in sections:
        rows = [
            {**asdict(row), "goal": str(row.goal or ""), "reached": row.verdict}
            for row in section.rows
        ]
        body[section.name] = {"rows": rows, "notes": list(section.notes), **circumstances}
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(body, indent=1, ensure_ascii=False, sort_keys=True)
    path.write_text(text + "\n", encoding="utf-8")
