"""One pass over a prompt for all rows of a job that begin as the base does.

Until the first of its adapters acts, a row's keys and values are the base's, the same in every such
row. One of them runs those tokens; the others wait for it, copy them, and run the rest.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from experts.arena import Arena
from experts.job import Feed, Job, Row

_WORTH = 32
"""Tokens that take a CPU about as long as the step that waiting for them costs."""


def share(jobs: Iterable[Job], busy: Collection[Row], arena: Arena) -> set[Row]:
    """Copy what another row of the job has; returns the rows that should wait for more of it.

    Nothing is copied into a row of `busy`, on which a pass works. Of the rows that are to be fed,
    the one with most of the base's tokens never waits, so that those that wait for it get on.
    """
    return {row for job in jobs if _is_shared(job) for row in _settle(job, busy, arena)}


def _is_shared(job: Job) -> bool:
    rows = [row for row in job.rows if row.shared]
    return len(rows) > 1 and not job.done and any(r.cache.length < r.shared for r in rows)


def _settle(job: Job, busy: Collection[Row], arena: Arena) -> set[Row]:
    feeds = [feed for feed in job.feeds() if feed.row.shared]
    free = [feed for feed in feeds if feed.row not in busy]
    for feed in free:
        _catch_up(feed, job, arena)
    most = max((feed.row.shared for feed in feeds), default=0)
    leader = next((feed for feed in feeds if feed.row.shared == most), None)
    missing = {
        feed.row: min(_common(feed), most) - feed.row.cache.length
        for feed in free
        if feed is not leader
    }
    waiting = {row: tokens for row, tokens in missing.items() if tokens > 0}
    return set(waiting) if sum(waiting.values()) >= _WORTH else set()


def _catch_up(feed: Feed, job: Job, arena: Arena) -> None:
    others = (row for row in job.rows if row is not feed.row)
    source = max(others, key=_of_the_base)
    length = min(_common(feed), _of_the_base(source))
    if length > feed.row.cache.length:
        arena.copy(source.cache, feed.row.cache, length)


def _common(feed: Feed) -> int:
    # What stands before the first token whose logits are wanted.
    return min(feed.row.shared, min(feed.wanted, default=feed.stop))


def _of_the_base(row: Row) -> int:
    return min(row.shared, row.cache.length)
