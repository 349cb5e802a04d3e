"""Counters with tags, for whoever exports them."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Count:
    """One counter: its name, its tags, and what was counted since the start."""

    name: str
    tags: Mapping[str, str]
    value: float


class Counts:
    """Counters that several threads may add to."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}

    def add(self, name: str, value: float = 1.0, **tags: str) -> None:
        """Count."""
        key = (name, tuple(tags.items()))
        with self._lock:
            self._values[key] = self._values.get(key, 0.0) + value

    def read(self) -> list[Count]:
        """All counters at this moment."""
        with self._lock:
            found = list(self._values.items())
        return [Count(name, dict(tags), value) for (name, tags), value in found]
