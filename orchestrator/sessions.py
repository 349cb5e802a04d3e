"""What each session was answered by last, for as long as it is fresh; of one gateway process."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class _Memory:
    weights: Mapping[str, float]
    until: float


class Sessions:
    """The last weights of at most `most` sessions, each forgotten `seconds` after its last answer.

    A session belongs to a tenant: the same name of two tenants is two sessions. Where there are too
    many, the one that was answered longest ago goes.
    """

    def __init__(
        self, most: int, seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._most, self._seconds, self._clock = most, seconds, clock
        self._memories: OrderedDict[tuple[str, str], _Memory] = OrderedDict()

    def last(self, tenant: str, session: str) -> Mapping[str, float]:
        """The weights of the session's last decision; empty where there is none that is fresh."""
        found = self._memories.get((tenant, session))
        return found.weights if found and self._clock() < found.until else {}

    def remember(self, tenant: str, session: str, weights: Mapping[str, float]) -> None:
        """Note a decision's weights as the session's last."""
        key, now = (tenant, session), self._clock()
        self._memories[key] = _Memory(dict(weights), now + self._seconds)
        self._memories.move_to_end(key)
        oldest = next(iter(self._memories.values()))
        while self._memories and (len(self._memories) > self._most or oldest.until <= now):
            self._memories.popitem(last=False)
            oldest = next(iter(self._memories.values()), oldest)
