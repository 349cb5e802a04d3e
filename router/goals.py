"""Bounds that a report has to keep: read from JSON, checked one by one, every miss in words.

A file holds one object of metric to bound, as in `{"accuracy.value": ">= 0.97",
"domains.*.accuracy.value": ">= 0.92"}`. A metric is a path of keys into `report.json`, with `*` for
every key (or place of a list) at that level.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_BOUND = re.compile(r"(<=|>=)\s*([-+]?[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)")


class GoalError(ValueError):
    """A goal that cannot be read or looked up; the message names it and says what is allowed."""


@dataclass(frozen=True)
class Goal:
    """A metric's bound."""

    metric: str
    limit: float
    at_most: bool

    @property
    def bound(self) -> str:
        """The bound as it is written in the file."""
        return f"{'<=' if self.at_most else '>='} {self.limit:g}"

    def holds(self, value: float) -> bool:
        """Tell whether the value keeps the bound."""
        return value <= self.limit if self.at_most else value >= self.limit


@dataclass(frozen=True)
class Finding:
    """One metric of a report beside its goal; `value` is None where it was not measured."""

    metric: str
    value: float | None
    bound: str
    reached: bool


def read_goals(path: Path) -> tuple[Goal, ...]:
    """Read a file of goals.

    Raises `GoalError` for what is no such file, naming the metric; `OSError` for a missing one.
    """
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise GoalError(f"{path}: not JSON ({error}).") from error
    if not isinstance(fields, dict) or not fields:
        raise GoalError(f"{path}: expected an object of metric to bound that is not empty.")
    return tuple(_goal(path, metric, bound) for metric, bound in fields.items())


def _goal(path: Path, metric: str, bound: object) -> Goal:
    found = _BOUND.fullmatch(bound.strip()) if isinstance(bound, str) else None
    if found is None:
        raise GoalError(
            f'{path}: the bound of {metric} must be a string like ">= 0.97" or "<= 0.02"; '
            f"got {bound!r}."
        )
    return Goal(metric, float(found[2]), found[1] == "<=")


def check_goals(goals: Sequence[Goal], report: Mapping[str, Any]) -> tuple[Finding, ...]:
    """Return every metric that the goals name, with its verdict; what is null is not reached.

    Raises `GoalError` for a path that leads nowhere in the report.
    """
    return tuple(
        Finding(metric, value, goal.bound, value is not None and goal.holds(value))
        for goal in goals
        for metric, value in _look_up(goal, report)
    )


def _look_up(goal: Goal, report: Mapping[str, Any]) -> Iterator[tuple[str, float | None]]:
    for path, value in _walk("", report, goal.metric.split("."), goal.metric):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise GoalError(f"{goal.metric}: {path} is no number; {_known(value)}")
        yield path, None if value is None else float(value)


def _walk(where: str, value: Any, keys: Sequence[str], metric: str) -> Iterator[tuple[str, Any]]:  # noqa: ANN401
    # A section that was not measured is null, and so is everything in it.
    if not keys or value is None:
        yield ".".join(part for part in (where, *keys) if part), value
        return
    inside = _children(value)
    picked = list(inside) if keys[0] == "*" else [keys[0]]
    for key in picked:
        if key not in inside:
            raise GoalError(f"{metric}: there is no {key!r} {_place(where)}; {_known(value)}")
        yield from _walk(f"{where}.{key}".lstrip("."), inside[key], keys[1:], metric)


def _children(value: object) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return {str(key): inner for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return {str(place): inner for place, inner in enumerate(value)}
    return {}


def _place(where: str) -> str:
    return f"in {where}" if where else "in the report"


def _known(value: object) -> str:
    names = ", ".join(_children(value))
    return f"there are {names}." if names else "it has no parts."
