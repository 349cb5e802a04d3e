"""Quality bars: what a version's report must show before it may act."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Bar:
    """Limits of one figure of the report, named by its path (`held_out.accuracy`).

    `at_least` and `at_most` hold by themselves; `drop` and `rise` say how far the figure may be
    below or above that of the version that acts. None is no limit.
    """

    metric: str
    at_least: float | None = None
    at_most: float | None = None
    drop: float | None = None
    rise: float | None = None


@dataclass(frozen=True)
class Finding:
    """One limit that was looked at: whether it is kept, in words with both figures."""

    kept: bool
    words: str


def figure(report: Mapping[str, Any], metric: str) -> float | None:
    """Return the number at a dotted path of a report; None where there is no finite number."""
    found: Any = report
    for step in metric.split("."):
        found = found.get(step) if isinstance(found, Mapping) else None
    if isinstance(found, bool) or not isinstance(found, int | float) or not math.isfinite(found):
        return None
    return float(found)


def judge(
    report: Mapping[str, Any], acting: Mapping[str, Any], bars: Sequence[Bar]
) -> list[Finding]:
    """Return what each bar finds in a report, beside the report of the version that acts.

    A figure that the report lacks breaks its bar. Where only the acting version lacks it, `drop`
    and `rise` have nothing to compare with and are kept.
    """
    findings: list[Finding] = []
    for bar in bars:
        value = figure(report, bar.metric)
        if value is None:
            findings.append(Finding(False, f"{bar.metric}: the report has no such figure"))
        else:
            findings += _absolute(bar, value)
            findings += _relative(bar, value, figure(acting, bar.metric))
    return findings


def judge_labels(
    labels: Sequence[str],
    acting: Sequence[str],
    experts: Sequence[str],
    disabled: Sequence[str] = (),
) -> list[Finding]:
    """Return whether a version knows the experts that the acting one knows, and no strangers.

    Those that are disabled need not be known.
    """
    needed = [name for name in experts if name in acting and name not in disabled]
    lost = [name for name in needed if name not in labels]
    strange = [name for name in labels if name not in experts and name not in acting]
    known = ", ".join(labels)
    return [
        Finding(
            not lost,
            f"labels: {known}; the acting version also knows the configured {', '.join(lost)}"
            if lost
            else f"labels: every configured expert of the acting version is known ({known})",
        ),
        Finding(
            not strange,
            f"labels: {', '.join(strange)} is no expert of the configuration, which has "
            f"{', '.join(experts)}"
            if strange
            else "labels: none is unknown to the configuration",
        ),
    ]


def _absolute(bar: Bar, value: float) -> list[Finding]:
    found = []
    if bar.at_least is not None:
        words = f"{bar.metric} is {value:.4f}, at least {bar.at_least:.4f} is asked"
        found.append(Finding(value >= bar.at_least, words))
    if bar.at_most is not None:
        words = f"{bar.metric} is {value:.4f}, at most {bar.at_most:.4f} is allowed"
        found.append(Finding(value <= bar.at_most, words))
    return found


def _relative(bar: Bar, value: float, acting: float | None) -> list[Finding]:
    limits = (("below", bar.drop, -1.0), ("above", bar.rise, 1.0))
    found = []
    for side, most, sign in limits:
        if most is None:
            continue
        if acting is None:
            words = f"{bar.metric} is {value:.4f}; the acting version has no such figure"
            found.append(Finding(True, words))
            continue
        words = (
            f"{bar.metric} is {value:.4f}, the acting version's {acting:.4f}; it may be "
            f"{most:.4f} {side}"
        )
        # Reports are rounded to four digits: a difference of the limit itself is kept.
        found.append(Finding(sign * (value - acting) <= most + 1e-9, words))
    return found
