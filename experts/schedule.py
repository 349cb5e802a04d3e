"""Who goes next: admission by priority and fair share, and the token budget of a step."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from experts.job import Feed, Job


@dataclass(frozen=True)
class Slice:
    """The part of a feed that one step runs: `count` tokens behind the row's cache."""

    job: Job
    feed: Feed
    count: int

    @property
    def positions(self) -> list[int]:
        """Positions of this part whose logits are wanted."""
        start = self.feed.row.cache.length
        return [p for p in self.feed.wanted if start <= p < start + self.count]


class FairShare:
    """Tokens run per principal: the one that was given least goes first.

    One that arrives starts level with the least served of those present, so that idling saves
    nothing up (start-time fair queueing, Goyal et al. 1997).
    """

    def __init__(self) -> None:
        self._given: dict[str, int] = {}

    def arrive(self, job: Job) -> None:
        """A job has come in."""
        level = min(self._given.values(), default=0)
        self._given.setdefault(job.terms.principal, level)

    def order(self, waiting: Collection[Job]) -> list[Job]:
        """Whose turn it is: largest priority, least served, longest waiting."""
        # Sorting is stable, and `waiting` is in order of arrival.
        return sorted(waiting, key=lambda j: (-j.terms.priority, self._given[j.terms.principal]))

    def count(self, job: Job, tokens: int) -> None:
        """`tokens` were run for this job."""
        self._given[job.terms.principal] += tokens

    def keep(self, present: Collection[str]) -> None:
        """Forget principals that have no job here."""
        for name in self._given.keys() - set(present):
            del self._given[name]


def plan_step(jobs: Iterable[Job], alone: int, beside: int) -> list[Slice]:
    """Cut the jobs' feeds to the budget of one step: short ones first, then prompts in parts.

    Args:
        alone: tokens of a step in which no answer is being written.
        beside: prompt tokens of a step that also carries running answers, which it delays.
    """
    pending: list[tuple[int, int, int, Job, Feed]] = []
    for job in jobs:
        for feed in job.feeds():
            length = feed.stop - feed.row.cache.length
            pending.append((length, -job.terms.priority, len(pending), job, feed))
    pending.sort(key=lambda item: (item[0] > 1, item[1], item[0], item[2]))
    running = sum(item[0] == 1 for item in pending)
    budget = running + beside if running else alone
    slices = []
    for length, _, _, job, feed in pending:
        count = min(length, budget)
        if count > 0:
            budget -= count
            slices.append(Slice(job, feed, count))
    return slices
