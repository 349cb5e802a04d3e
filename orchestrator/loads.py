"""How long a call to each expert waits now, learnt from the calls of this gateway process itself.

Nothing is asked of the replicas: a call waits from its start to its first piece of text. The
estimate for the next call is the number of those waiting times the seconds between two first
pieces (Little's law), which are at least the present silence. Experts of one deployment share it.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from experts.generation import Chunk, Generation, Health, Score, Scoring
from orchestrator.ports import ExpertPort

Clock = Callable[[], float]

_MEMORY = 0.8
"""Weight of what was known before, at each first piece."""


class Queue:
    """The calls to one deployment that wait for their first piece of text."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._waiting = 0
        self._pace: float | None = None
        self._stirred = 0.0

    @property
    def seconds(self) -> float:
        """What the next call is estimated to wait; 0 where none waits."""
        silence = self._clock() - self._stirred
        return self._waiting * max(self._pace or 0.0, silence) if self._waiting else 0.0

    def enter(self) -> None:
        """A call was made."""
        if not self._waiting:
            self._stirred = self._clock()
        self._waiting += 1

    def begin(self) -> None:
        """A call that waited got its first piece."""
        now = self._clock()
        seconds, self._stirred = now - self._stirred, now
        known = self._pace
        self._pace = seconds if known is None else _MEMORY * known + (1 - _MEMORY) * seconds
        self._waiting -= 1

    def leave(self) -> None:
        """A call ended without having begun."""
        self._waiting -= 1


class Loads:
    """The queues of all deployments; `groups` are the experts of each."""

    def __init__(self, groups: Sequence[Sequence[str]], clock: Clock = time.monotonic) -> None:
        self._queues = [(tuple(names), Queue(clock)) for names in groups]

    def waits(self) -> dict[str, float]:
        """Seconds that a call waits now, by expert; those without a queue are left out."""
        lengths = ((names, queue.seconds) for names, queue in self._queues)
        return {name: seconds for names, seconds in lengths if seconds > 0.0 for name in names}

    def counted(self, ports: Mapping[str, ExpertPort]) -> dict[str, ExpertPort]:
        """The same ports, whose calls are counted here; those of other experts as they are."""
        queues = {name: queue for names, queue in self._queues for name in names}
        return {
            name: _CountedPort(port, queues[name]) if name in queues else port
            for name, port in ports.items()
        }


@dataclass(frozen=True)
class _CountedPort:
    port: ExpertPort
    queue: Queue

    async def generate(self, request: Generation) -> AsyncGenerator[Chunk, None]:
        begun = False
        self.queue.enter()
        try:
            async with aclosing(self.port.generate(request)) as chunks:
                async for chunk in chunks:
                    if not begun:
                        begun = True
                        self.queue.begin()
                    yield chunk
        finally:
            if not begun:
                self.queue.leave()

    async def score(self, request: Scoring) -> Score:
        return await self.port.score(request)

    async def health(self) -> Health:
        return await self.port.health()
