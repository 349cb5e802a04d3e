"""When the steps of a request were over."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass
class Timings:
    """Milliseconds since the request was accepted, by step; `started` is on the monotonic clock."""

    started: float
    marks: dict[str, float] = field(default_factory=dict)

    def mark(self, step: str) -> None:
        """Note that a step is over; the first note of a step stands."""
        self.marks.setdefault(step, round((time.monotonic() - self.started) * 1000, 2))
