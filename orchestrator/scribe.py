"""The scribe: the thread that writes the log of decisions."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from orchestrator.decision_log import DecisionLog, LogError, Transaction
from orchestrator.metrics import Metrics
from router.logged_decision import LoggedDecision, Opinion
from router.provenance import Provenance

logger = logging.getLogger(__name__)

WAITING = 2_048
"""Decisions that may wait to be written; more are not kept, and counted."""

LINGER_S = 0.05
"""How long a decision waits for others to be written with it; feedback waits for nothing."""

_BATCH = 256
_IDLE_S = 600.0
_TOLD = 100


@dataclass(frozen=True)
class Noted:
    """A decision; `make` builds its row, in the scribe's thread."""

    make: Callable[[], LoggedDecision]

    def write(self, log: Transaction) -> None:
        """Write it."""
        log.add(self.make())


@dataclass(frozen=True)
class Ended:
    """How the answer to a decision ended."""

    decision_id: str
    latency: str
    stood_in: bool
    provenance: Provenance | None = None

    def write(self, log: Transaction) -> None:
        """Write it."""
        log.end(self.decision_id, self.latency, self.provenance, stood_in=self.stood_in)


@dataclass(frozen=True)
class Rated:
    """An opinion; whoever waits for `answer` gets what `Transaction.rate` returns, once on disk."""

    decision_id: str
    tenant: str
    opinion: Opinion
    answer: Future[bool | None]

    def write(self, log: Transaction) -> bool | None:
        """Write it."""
        return log.rate(self.decision_id, self.tenant, self.opinion)


Entry = Noted | Ended | Rated


class Scribe:
    """Writes entries in the order in which they were put, many in one transaction.

    The thread begins with the first entry. `waiting` bounds what waits, feedback apart; `linger`
    is in seconds. What fails is logged and counted, and the next batch is tried anew.
    """

    def __init__(
        self,
        log: DecisionLog,
        metrics: Metrics,
        waiting: int = WAITING,
        linger: float = LINGER_S,
    ) -> None:
        self._log, self._metrics = log, metrics
        self._waiting, self._linger = waiting, linger
        self._queue: queue.SimpleQueue[Entry | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._told: set[str] = set()

    def put(self, entry: Entry) -> None:
        """Take an entry; never waits. What finds too many waiting is dropped, feedback never."""
        if self._queue.qsize() >= self._waiting and not isinstance(entry, Rated):
            self._metrics.unlogged.labels("queue").inc(isinstance(entry, Noted))
            return
        self._queue.put(entry)
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="scribe", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Write what was put, and end."""
        self._queue.put(None)
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        going = True
        while going:
            batch: list[Entry] = []
            going = self._fill(batch)
            self._write(batch)
        self._log.close()

    def _fill(self, batch: list[Entry]) -> bool:
        """Gather what is written together, or nothing when nothing comes; whether to go on."""
        until = time.monotonic() + _IDLE_S
        while len(batch) < _BATCH:
            try:
                entry = self._queue.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                break
            if entry is None:
                return False
            if isinstance(entry, Rated):
                # What is there already comes along.
                until = 0.0
            elif not batch:
                until = time.monotonic() + self._linger
            batch.append(entry)
        return True

    def _write(self, batch: Sequence[Entry]) -> None:
        """Also without entries: what is too old goes while nothing comes."""
        results: list[bool | None] = []
        try:
            with self._log.transaction() as log:
                results += [entry.write(log) for entry in batch]
        except LogError as error:
            self._fail(batch, error)
        except Exception as error:
            # One entry may be broken in any way; the others must not go with it.
            if len(batch) == 1:
                self._fail(batch, error)
            else:
                for entry in batch:
                    self._write([entry])
        else:
            self._metrics.logged.inc(sum(isinstance(entry, Noted) for entry in batch))
            for entry, result in zip(batch, results, strict=True):
                if isinstance(entry, Rated) and entry.answer.set_running_or_notify_cancel():
                    entry.answer.set_result(result)

    def _fail(self, batch: Sequence[Entry], error: Exception) -> None:
        lost = sum(isinstance(entry, Noted) for entry in batch)
        self._metrics.unlogged.labels("fault").inc(lost)
        words = f"{type(error).__name__}: {error}"
        if words not in self._told and len(self._told) < _TOLD:
            self._told.add(words)
            logger.error("decisions cannot be kept: %s", words)
        for entry in batch:
            if isinstance(entry, Rated) and entry.answer.set_running_or_notify_cancel():
                entry.answer.set_exception(LogError(words))
