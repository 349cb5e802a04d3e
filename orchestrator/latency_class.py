"""How long an answer took, coarsely: a class says enough to learn from, and ages better."""

from __future__ import annotations

from enum import StrEnum


class LatencyClass(StrEnum):
    """Classes of seconds from arrival to the end of the answer."""

    UNDER_1_S = "under_1s"
    UNDER_3_S = "under_3s"
    UNDER_10_S = "under_10s"
    UNDER_30_S = "under_30s"
    OVER = "30s_or_more"


_BOUNDS = (
    (1.0, LatencyClass.UNDER_1_S),
    (3.0, LatencyClass.UNDER_3_S),
    (10.0, LatencyClass.UNDER_10_S),
    (30.0, LatencyClass.UNDER_30_S),
)


def latency_class(seconds: float) -> LatencyClass:
    """The class of a time."""
    return next((name for bound, name in _BOUNDS if seconds < bound), LatencyClass.OVER)
