"""The caller's deadline, held against every step of a request."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable
from contextlib import aclosing
from typing import TypeVar

from orchestrator.errors import DeadlineExceeded
from orchestrator.task import Task

_Result = TypeVar("_Result")


async def within(task: Task, work: Awaitable[_Result]) -> _Result:
    """The result of `work`, if it comes before the task's deadline.

    Raises:
        DeadlineExceeded: it does not; the work is cancelled.
    """
    left = None if task.deadline is None else task.deadline - time.monotonic()
    try:
        async with asyncio.timeout(left) as limit:
            return await work
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise too_late() from error


def too_late() -> DeadlineExceeded:
    """The error that says so."""
    return DeadlineExceeded(
        "`routing.deadline_ms` passed before the answer was whole.", param="routing.deadline_ms"
    )


async def bounded(
    task: Task, events: AsyncGenerator[_Result, None]
) -> AsyncGenerator[_Result, None]:
    """The same events, until the task's deadline.

    Raises:
        DeadlineExceeded: the deadline passed before the next event.
    """
    async with aclosing(events):
        while True:
            try:
                yield await within(task, anext(events))
            except StopAsyncIteration:
                break
