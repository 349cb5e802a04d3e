"""Passes over long prompts that rest between layers, so that running answers go on.

A pass of 256 tokens takes as long as ten steps of an answer. Cut into shorter ones it would waste
the arithmetic; resting between its layers it delays a step by one layer at most. After each step of
the running answers the passes get three quarters of its time, and more where more requests wait for
their first token than write.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch

from experts.job import Found, Job, Row
from experts.plan import Slice, plan_pass
from experts.runner import Pass, Runner, Work
from experts.sharing import share

_SHARE, _MOST_SHARE = 0.75, 3.0
_MOST = 3
_OLDEST_EVERY = 4


@dataclass(eq=False)
class _Flight:
    plan: Sequence[Slice]
    forward: Pass
    tokens: int
    urgency: int


class Flights:
    """The passes in flight over one runner: a short one overtakes a longer one.

    Every fourth share of time goes to the oldest, and every fourth pass begins with the job that
    came first, so that a long prompt gets on under a stream of short ones.

    Args:
        most_tokens: of one pass.
    """

    def __init__(self, runner: Runner, most_tokens: int) -> None:
        self._runner, self._most_tokens = runner, most_tokens
        self._flying: list[_Flight] = []
        self._turns = self._starts = 0

    @property
    def rows(self) -> set[Row]:
        """Rows that must not be fed now."""
        return {part.row for flight in self._flying for part in flight.plan}

    def drop(self, jobs: set[Job]) -> None:
        """Forget the passes that work for any of these jobs; the others of them start again."""
        self._flying = [f for f in self._flying if not any(part.job in jobs for part in f.plan)]

    def advance(
        self, jobs: Sequence[Job], step: float, writing: int = 0
    ) -> tuple[Sequence[Slice], list[Found]] | None:
        """Work on one pass for its share of the time, a layer at least.

        Args:
            jobs: in the order in which they were let in.
            step: seconds that the step before it took.
            writing: how many of the jobs it ran for; the others wait for passes.

        Returns:
            what was run and found when a pass is over, nothing found while it is not; None if no
            job needs a pass.
        """
        self._start(jobs)
        if not self._flying:
            return None
        flight = self._next()
        waiting = (len(jobs) - writing) / max(1, writing)
        share = max(_SHARE, min(_MOST_SHARE, waiting))
        began = time.perf_counter()
        done = flight.forward.advance()
        layer = (now := time.perf_counter()) - began
        while not done and now - began + layer <= share * step:
            done = flight.forward.advance()
            now = time.perf_counter()
        if not done:
            return (), []
        self._flying.remove(flight)
        return flight.plan, found_by(flight.plan, flight.forward.logits)

    def _start(self, jobs: Sequence[Job]) -> None:
        if len(self._flying) == _MOST:
            return
        rows = self.rows
        busy = rows | share(jobs, rows, self._runner.arena)
        aged = self._starts % _OLDEST_EVERY == _OLDEST_EVERY - 1
        plan = self._eldest(jobs, busy) if aged else plan_pass(jobs, busy, self._most_tokens)
        if plan:
            tokens, urgency = sum(part.count for part in plan), plan[0].job.terms.priority
            # One more is worth its turns only where it overtakes all that are under way.
            if aged or all((-urgency, 2 * tokens) <= (-f.urgency, f.tokens) for f in self._flying):
                self._starts += 1
                forward = self._runner.start(works_of(plan))
                self._flying.append(_Flight(plan, forward, tokens, urgency))

    def _eldest(self, jobs: Sequence[Job], busy: Collection[Row]) -> Sequence[Slice]:
        plans = (plan_pass([job], busy, self._most_tokens) for job in jobs)
        return next((plan for plan in plans if plan), ())

    def _next(self) -> _Flight:
        self._turns += 1
        if self._turns % _OLDEST_EVERY == 0:
            return self._flying[0]
        return min(self._flying, key=lambda flight: (-flight.urgency, flight.tokens))


def works_of(plan: Sequence[Slice]) -> list[Work]:
    """What the runner is to do for a plan."""
    works = []
    for part in plan:
        row = part.row
        wanted = [p - row.cache.length for p in part.positions]
        works.append(Work(row.cache, row.gate, part.tokens, wanted, row.starts))
    return works


def found_by(plan: Sequence[Slice], logits: Sequence[torch.Tensor]) -> list[Found]:
    """The runner's logits as what was found for each part of a plan."""
    return [
        Found(part.row, part.positions, found) for part, found in zip(plan, logits, strict=True)
    ]
