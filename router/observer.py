"""Watches what other versions would have decided, behind the backs of the requests."""

from __future__ import annotations

import atexit
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from router.cast import CANARY, SHADOW, Cast
from router.comparison import Pair, pair
from router.comparison_log import ComparisonLog
from router.counts import Counts
from router.decision import Decision
from router.router import Router

logger = logging.getLogger(__name__)

WAITING = 256


@dataclass(frozen=True)
class Sight:
    """A request that was decided by the router in `role` of `cast`.

    `decide` makes the decision of another router on it, from what was read already where that will
    do.
    """

    cast: Cast
    role: str
    decision: Decision
    decide: Callable[[Router], Decision]


class Observer:
    """Lets the versions that did not act decide too, counts how they agree, and logs the pairs.

    It works in a thread of its own, on the features of the request: one more product each, and the
    encoder only where a first stage settled what the other version must read. At most `waiting`
    requests wait for it; more go unseen and are counted as such. What fails here is logged and
    counted, and no request hears of it.
    """

    def __init__(self, log: ComparisonLog | None, counts: Counts, waiting: int = WAITING) -> None:
        self._log, self._counts = log, counts
        self._queue: queue.SimpleQueue[Sight | None] = queue.SimpleQueue()
        self._waiting = waiting
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._told: set[str] = set()

    def offer(self, sight: Sight) -> None:
        """Take a request if there is something to compare; never waits."""
        if sight.cast.shadow is None and sight.role != CANARY:
            return
        self._start()
        if self._queue.qsize() < self._waiting:
            self._queue.put(sight)
        else:
            self._counts.add("unseen")

    def stop(self) -> None:
        """End, after what waits."""
        self._queue.put(None)

    def close(self) -> None:
        """End, and wait until all that was taken is counted."""
        self.stop()
        if self._thread is not None:
            self._thread.join()

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="router-observer", daemon=True
                )
                self._thread.start()
                # A thread that runs the encoder while the interpreter ends would take it down.
                atexit.register(self.close)

    def _run(self) -> None:
        while (sight := self._queue.get()) is not None:
            try:
                for found in _pairs(sight):
                    self._count(found)
                    self._keep(found)
            except Exception as error:
                # A shadow may fail in any way; the request it watched was answered long ago.
                self._counts.add("shadow_failures")
                self._tell(f"{type(error).__name__}: {error}")
        atexit.unregister(self.close)

    def _count(self, found: Pair) -> None:
        values = {
            "compared": 1.0,
            "same_lead": float(found.same_lead),
            "same_set": float(found.same_set),
            "divergence_nats": found.divergence,
        }
        for name, value in values.items():
            role, version, expert = found.role, found.other, found.lead
            self._counts.add(name, value, role=role, version=version, expert=expert)

    def _keep(self, found: Pair) -> None:
        if self._log is None:
            return
        try:
            self._log.add(found)
        except OSError as error:
            self._counts.add("log_faults")
            self._tell(f"{type(error).__name__}: {error}")

    def _tell(self, words: str) -> None:
        if words not in self._told and len(self._told) < WAITING:
            self._told.add(words)
            logger.error("comparing versions of the router failed: %s", words)


def _pairs(sight: Sight) -> Iterator[Pair]:
    """A pair with the canary where it acted, and one with the shadow where there is one."""
    cast, acted, at = sight.cast, sight.decision, time.time()
    current = acted
    if sight.role == CANARY:
        current = sight.decide(cast.current)
        yield pair(CANARY, current, acted, at)
    # A version may be both: what it did as the canary is not counted once more.
    if cast.shadow is not None and cast.shadow.version != acted.router_version:
        yield pair(SHADOW, current, sight.decide(cast.shadow), at)
