"""What runs next: single steps of running answers, and passes over long prompts beside them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from experts.job import Feed, Job, Row

QUICK = 64
"""Prompt tokens that a CPU computes in about the time of two steps of an answer."""

CHEAP = 8
"""Tokens of a step up to which one more costs a CPU little: all wait for the same weights."""


_Item = tuple[int, Job, Feed]
"""Tokens to run, for whom, and where."""


@dataclass(frozen=True)
class Slice:
    """The part of a feed that one pass runs: `count` tokens behind the row's cache.

    `positions` are those of this part whose logits are wanted.
    """

    job: Job
    row: Row
    count: int
    positions: tuple[int, ...]

    @property
    def tokens(self) -> list[int]:
        """The tokens to run."""
        start = self.row.cache.length
        return self.job.tokens[start : start + self.count]


def plan_step(jobs: Iterable[Job], busy: Collection[Row], beside: int) -> list[Slice]:
    """The next step: what every running answer needs, and short feeds that may ride along.

    A feed that does not fit whole is left to `plan_pass`, so that no answer waits for it. Spare
    tokens run only while the step is cheap.

    Args:
        busy: rows that a pass in flight works on, or that wait for another row of their job.
        beside: tokens that may ride with running answers; without answers it is at least `QUICK`.
    """
    pending = _pending(jobs, busy)
    spare = CHEAP - sum(length - feed.spare for length, _, feed in filter(_goes_on, pending))
    budget = beside if any(_goes_on(item) for item in pending) else max(beside, QUICK)
    slices = []
    for item in sorted(pending, key=_turn):
        length, job, feed = item
        if _goes_on(item):
            kept = max(0, min(feed.spare, spare))
            spare -= kept
            slices.append(_slice(job, feed, length - feed.spare + kept))
        elif length <= budget:
            budget -= length
            slices.append(_slice(job, feed, length))
    return slices


def plan_pass(jobs: Iterable[Job], busy: Collection[Row], most: int) -> list[Slice]:
    """The next pass over prompts: the most urgent and shortest, with others that do not delay it.

    What running answers need is left to `plan_step`. Rows of one job run together, because it
    waits for all of them.

    Args:
        most: tokens of a pass; a longer prompt takes several.
    """
    pending = [item for item in _pending(jobs, busy) if not _goes_on(item)]
    slices: list[Slice] = []
    room = most
    for length, job, feed in sorted(pending, key=_turn):
        if not slices:
            slices.append(_slice(job, feed, min(length, most)))
            alone = max(0, most - max(slices[0].count, QUICK))
            room -= slices[0].count
        elif length <= room - (0 if job is slices[0].job else alone):
            slices.append(_slice(job, feed, length))
            room -= length
    return slices


def _pending(jobs: Iterable[Job], busy: Collection[Row]) -> list[_Item]:
    return [
        (feed.stop - feed.row.cache.length, job, feed)
        for job in jobs
        if not job.done
        for feed in job.feeds()
        if feed.row not in busy
    ]


def _turn(item: _Item) -> tuple[bool, int, int]:
    length, job, _ = item
    return (not _goes_on(item), -job.terms.priority, length)


def _goes_on(item: _Item) -> bool:
    """Whether a running answer waits for it: its row has read the prompt before."""
    length, job, feed = item
    return feed.row.cache.length >= job.prompt and length <= QUICK


def _slice(job: Job, feed: Feed, count: int) -> Slice:
    start = feed.row.cache.length
    wanted = tuple(p for p in feed.wanted if start <= p < start + count)
    return Slice(job, feed.row, count, wanted)
