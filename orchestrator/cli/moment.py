"""Times on the command line: an age (7d), or a date."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime

import click

_SECONDS = {"m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}


def read_moment(_context: click.Context, _option: click.Parameter, value: str | None) -> float:
    """Seconds since 1970 of "7d", "2026-11-01" or "2026-11-01T08:00+01:00"; UTC unless it says."""
    if value is None:
        return 0.0
    if ago := re.fullmatch(r"(\d+(?:\.\d+)?)([mhdw])", value):
        return max(0.0, time.time() - float(ago[1]) * _SECONDS[ago[2]])
    try:
        moment = datetime.fromisoformat(value)
    except ValueError as error:
        words = f"{value!r} is neither a time (2026-11-01) nor an age (30m, 12h, 7d, 2w)."
        raise click.BadParameter(words) from error
    return max(0.0, (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
