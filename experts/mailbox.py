"""Events from the engine's thread to a coroutine."""

from __future__ import annotations

import asyncio
from typing import TypeVar

from experts.generation import Chunk, Score
from experts.job import Event

_Event = TypeVar("_Event", Chunk, Score)


class Mailbox:
    """One request's events, in order; chunks that are ready travel together."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Event] = asyncio.Queue()

    def put(self, event: Event) -> None:
        """Deliver from any thread."""
        # A loop that is closing has no reader left; its request is cancelled with it.
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._queue.put_nowait, event)

    async def chunk(self) -> Chunk:
        """Everything that is ready, as one chunk; waits for the first piece.

        Raises:
            ExpertError: the engine sent one.
        """
        chunks = [await self._take(Chunk)]
        while not self._queue.empty() and chunks[-1].finish_reason is None:
            chunks.append(await self._take(Chunk))
        last = chunks[-1]
        return Chunk(
            text="".join(c.text for c in chunks),
            logprobs=tuple(p for c in chunks for p in c.logprobs),
            finish_reason=last.finish_reason,
            usage=last.usage,
            method=last.method,
        )

    async def score(self) -> Score:
        """The score.

        Raises:
            ExpertError: the engine sent one.
        """
        return await self._take(Score)

    async def _take(self, kind: type[_Event]) -> _Event:
        event = await self._queue.get()
        if isinstance(event, BaseException):
            raise event
        if not isinstance(event, kind):
            raise TypeError(f"expected {kind.__name__}, got {event!r}")
        return event
