"""What an engine has done since it was started."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Counters:
    """Steps, rows and tokens run, seconds in steps, and jobs that came to their end.

    `guessed` and `guessed_right`: see `Job`; they count when a job is over.
    """

    steps: int = 0
    rows: int = 0
    tokens: int = 0
    seconds: float = 0.0
    finished: int = 0
    guessed: int = 0
    guessed_right: int = 0
