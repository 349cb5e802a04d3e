"""Rows of many sub-domains dealt into three parts that share no group and no prompt.

`adapter` trains a sub-domain's adapter; `gate` is seen by no adapter, so that losses on it are not
flattered by memory, and teaches the gate; `held_out` is measured on and taught to nobody. The same
seed deals the same rows on every machine.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import accumulate, groupby
from pathlib import Path
from typing import Any

from benchmarks.sub_domains import Source
from experts.examples import Row, read_rows
from router.dataset import fingerprint, hash_share

PARTS = ("adapter", "gate", "held_out")
TABLE = "table.json"

_CANDIDATES = 1500
"""Rows of a sub-domain that are looked at, in the order of the deal: more would only take time."""
_PER_GROUP = 2
"""Held-out rows of one group: a rule with a hundred questions is not to be a third of them."""

Measure = Callable[[Row], tuple[int, int] | None]
"""Tokens of a row's prompt and answer; None where it cannot be used."""


@dataclass(frozen=True)
class Limits:
    """How much of each sub-domain is taken.

    `tokens`, of prompts and answers, train an adapter; a row counts `row_tokens` at most, because
    its answer is cut there. Rows with more than `prompt_tokens` before the answer are left out.
    At most `held_out` rows, and a quarter of all, are held out, and at most `gate_rows` are kept
    for the gate alone. A sub-domain with fewer than `fewest` held-out rows, or less than a quarter
    of the tokens, is left out.
    """

    tokens: int = 10_000
    held_out: int = 24
    gate_rows: int = 160
    prompt_tokens: int = 200
    row_tokens: int = 256
    fewest: int = 8
    seed: int = 0


@dataclass(frozen=True)
class Lesson:
    """A row, its group, and the tokens that it counts in training."""

    row: Row
    group: str
    tokens: int


@dataclass(frozen=True)
class Share:
    """The parts of one sub-domain; `tokens` are those of the rows for its adapter."""

    adapter: tuple[Row, ...]
    gate: tuple[Row, ...]
    held_out: tuple[Row, ...]
    tokens: int

    def counts(self) -> dict[str, int]:
        """Rows of each part, and the adapter's tokens."""
        return {**{part: len(getattr(self, part)) for part in PARTS}, "tokens": self.tokens}


@dataclass(frozen=True)
class Deal:
    """The shares by sub-domain, and how many rows those had that were left out."""

    shares: Mapping[str, Share]
    left_out: Mapping[str, int] = field(default_factory=dict)


def read_lessons(
    data: Path, table: Mapping[str, Sequence[Source]], measure: Measure, limits: Limits
) -> dict[str, list[Lesson]]:
    """The usable rows of every sub-domain, in the order of the deal.

    A prompt that comes again is taken once, by the first sub-domain that has it. Raises
    `ExampleError` for a line that is no row, `OSError` for a missing file.
    """
    files = sorted({source.file for sources in table.values() for source in sources})
    rows = {name: read_rows([data / "train" / f"{name}.jsonl"]) for name in files}
    seen: set[int] = set()
    return {
        name: _lessons(_unseen(sources, rows, seen), measure, limits)
        for name, sources in table.items()
    }


def _unseen(
    sources: Sequence[Source], rows: Mapping[str, Sequence[Row]], seen: set[int]
) -> list[tuple[Row, str]]:
    found = []
    for source in sources:
        for row in rows[source.file]:
            if source.has(row) and fingerprint(row.prompt) not in seen:
                seen.add(fingerprint(row.prompt))
                found.append((row, source.group_of(row)))
    return found


def _lessons(found: Iterable[tuple[Row, str]], measure: Measure, limits: Limits) -> list[Lesson]:
    def place(pair: tuple[Row, str]) -> tuple[float, str, float]:
        row, group = pair
        # By group first: what belongs together lies together, wherever its row comes from.
        return hash_share(group, limits.seed), group, hash_share(row.prompt, limits.seed)

    lessons = []
    for row, group in sorted(found, key=place)[:_CANDIDATES]:
        sizes = measure(row)
        if sizes is not None and sizes[0] <= limits.prompt_tokens:
            lessons.append(Lesson(row, group, min(sum(sizes), limits.row_tokens)))
    return lessons


def deal(found: Mapping[str, Sequence[Lesson]], limits: Limits) -> Deal:
    """Deal every sub-domain's lessons, which lie group by group, into its parts.

    No group of any sub-domain's held-out rows is in any other part of any sub-domain.
    """
    held = {name: _held_out(lessons, limits) for name, lessons in found.items()}
    apart = {lesson.group for lessons in held.values() for lesson in lessons}
    shares, left_out = {}, {}
    for name, lessons in found.items():
        rest = [lesson for lesson in lessons if lesson.group not in apart]
        share = _share(rest, held[name], limits)
        if len(share.held_out) < limits.fewest or share.tokens < limits.tokens / 4:
            left_out[name] = len(lessons)
        else:
            shares[name] = share
    return Deal(shares, left_out)


def _held_out(lessons: Sequence[Lesson], limits: Limits) -> list[Lesson]:
    quota = min(limits.held_out, len(lessons) // 4)
    taken: Counter[str] = Counter()
    chosen: list[Lesson] = []
    for lesson in lessons:
        if len(chosen) < quota and taken[lesson.group] < _PER_GROUP:
            taken[lesson.group] += 1
            chosen.append(lesson)
    return chosen


def _share(rest: Sequence[Lesson], held: Sequence[Lesson], limits: Limits) -> Share:
    adapter: list[Lesson] = []
    gate: list[Lesson] = []
    spent = 0
    for _, some in groupby(rest, key=lambda lesson: lesson.group):
        group = list(some)
        if spent < limits.tokens:
            part = _begin(group, limits.tokens // 10)
            adapter += part
            spent += sum(lesson.tokens for lesson in part)
        else:
            gate += group
    gate = gate[: limits.gate_rows]
    rows = [tuple(lesson.row for lesson in part) for part in (adapter, gate, held)]
    return Share(rows[0], rows[1], rows[2], spent)


def _begin(group: Sequence[Lesson], tokens: int) -> list[Lesson]:
    """The first rows of a group up to so many tokens: one rule is not to fill a whole adapter."""
    totals = accumulate((lesson.tokens for lesson in group), initial=0)
    return [lesson for lesson, before in zip(group, totals, strict=False) if before < tokens]


def write_deal(folder: Path, dealt: Deal, limits: Limits, stamp: str) -> None:
    """Write `NAME/PART.jsonl` for every sub-domain, and last the table with limits and stamp."""
    for name, share in dealt.shares.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for part in PARTS:
            lines = [
                json.dumps(_fields(row, name), ensure_ascii=False) + "\n"
                for row in getattr(share, part)
            ]
            part_file(folder, name, part).write_text("".join(lines), encoding="utf-8")
    body = {
        "stamp": stamp,
        "limits": asdict(limits),
        "sub_domains": {name: share.counts() for name, share in dealt.shares.items()},
        "left_out": dict(dealt.left_out),
    }
    (folder / TABLE).write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")


def _fields(row: Row, name: str) -> dict[str, Any]:
    return {**asdict(row), "domain": name}


def read_table(folder: Path) -> dict[str, Any]:
    """The table that `write_deal` wrote; empty where there is none."""
    path = folder / TABLE
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found


def part_file(folder: Path, name: str, part: str) -> Path:
    """Where the rows of a sub-domain's part lie."""
    return folder / name / f"{part}.jsonl"
