"""Who is let in next: admission by priority, fair share and waiting."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import replace
from math import inf

from experts.job import Job
from experts.limits import EngineLimits

_RISE = 20
"""Levels from the lowest priority of a request over HTTP to the highest."""


class FairShare:
    """Whose turn it is: by priority, which rises with waiting, then by tokens run per principal.

    Of equal level the principal that was given least goes first. One that arrives starts level with
    the least served of those present, so that idling saves nothing up (start-time fair queueing,
    Goyal et al. 1997).

    Each `ageing_s` seconds that the longest waiting request of a priority has waited raise that
    priority by one level: as a whole, or a principal with many old requests would go before all
    others of its priority. A request that has waited for 20 levels goes first whatever its
    priority, in order of arrival; after one level more, nothing behind it is let in until it is.
    So a request waits 21 · `ageing_s` seconds at most, and then for the end of what runs and of
    those that came before it, fewer than the waiting line holds.

    Args:
        clock: seconds; never goes back.
    """

    def __init__(
        self,
        ageing_s: float = EngineLimits.ageing_s,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ageing_s, self._clock = ageing_s, clock
        self._given: dict[str, int] = {}

    def arrive(self, job: Job) -> None:
        """A job has come in."""
        job.terms = replace(job.terms, arrived=self._clock())
        level = min(self._given.values(), default=0)
        self._given.setdefault(job.terms.principal, level)

    def order(self, waiting: Collection[Job]) -> list[Job]:
        """Those that may be let in now, in the order of their turns; all, or one overdue alone.

        `waiting` is in order of arrival.
        """
        now = self._clock()
        longest: dict[int, float] = {}
        for job in waiting:
            longest.setdefault(job.terms.priority, now - job.terms.arrived)

        def turn(job: Job) -> tuple[float, int]:
            if self._levels(now - job.terms.arrived) >= _RISE:
                return (-inf, 0)
            level = job.terms.priority + self._levels(longest[job.terms.priority])
            return (-level, self._given[job.terms.principal])

        # Sorting is stable: equals stay in order of arrival.
        turns = sorted(waiting, key=turn)
        overdue = turns and self._levels(now - turns[0].terms.arrived) > _RISE
        return turns[:1] if overdue else turns

    def _levels(self, waited: float) -> int:
        return int(waited // self._ageing_s)

    def count(self, job: Job, tokens: int) -> None:
        """`tokens` were run for this job."""
        self._given[job.terms.principal] += tokens

    def keep(self, present: Collection[str]) -> None:
        """Forget principals that have no job here."""
        for name in self._given.keys() - set(present):
            del self._given[name]
