"""The stepping loop of an engine: admit, plan, run, deliver, in a thread of its own."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence

from experts.adapters import AdapterError
from experts.arena import BASE, BLOCK, RowCache, whole_blocks
from experts.counters import Counters
from experts.flights import Flights, found_by, works_of
from experts.generation import Busy, ExpertError, Late
from experts.invocation import shared_length
from experts.job import Found, Job, Row, Terms
from experts.limits import EngineLimits
from experts.plan import Slice, plan_step
from experts.runner import Runner
from experts.schedule import FairShare
from experts.sharing import share
from experts.shelf import AdapterShelf

logger = logging.getLogger(__name__)

_BREATH = 0.01
"""Seconds of a prompt's pass between two looks for news, while nothing else runs."""


class StepLoop:
    """Jobs in, their events out. While the thread runs, nobody else may use the runner."""

    def __init__(self, runner: Runner, limits: EngineLimits, shelf: AdapterShelf) -> None:
        self.runner, self.limits, self.shelf = runner, limits, shelf
        self.shelf.notify = self._notify
        self.counters = Counters()
        self.failure: BaseException | None = None
        self._waiting: list[Job] = []
        self._running: list[Job] = []
        self._cancelled: set[Job] = set()
        self._flights = Flights(runner, limits.step_tokens)
        self._shares = FairShare(limits.ageing_s)
        self._wake = threading.Condition()
        self._stopping = self._news = False
        self._thread = threading.Thread(target=self._loop, name="engine", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread after the step in flight; open jobs get an error."""
        with self._wake:
            self._stopping = True
            self._tell()
        if self._thread.is_alive():
            self._thread.join()
        self.shelf.close()
        self._fail(ExpertError("the expert is shutting down"))

    @property
    def load(self) -> tuple[int, int]:
        """(running, waiting) jobs."""
        return len(self._running), len(self._waiting)

    def submit(self, job: Job, terms: Terms) -> None:
        """Let a job wait for its turn.

        Raises:
            Busy: the waiting line is full.
            ExpertError: the job can never run here, or the loop has failed.
        """
        job.terms = terms
        with self._wake:
            if self.failure is not None:
                raise ExpertError(f"the engine has failed: {self.failure}")
            if len(self._waiting) >= self.limits.max_waiting:
                raise Busy(f"{len(self._waiting)} requests are waiting for this expert already")
            self._check_size(job)
            self._shares.arrive(job)
            self._waiting.append(job)
            self._tell()

    def _check_size(self, job: Job) -> None:
        rows, capacity = len(job.rows), self.runner.arena.capacity
        if whole_blocks(job.longest) * rows > capacity or rows > self.limits.max_rows:
            raise ExpertError(
                f"the request needs {job.longest} tokens of cache in {rows} rows; "
                f"this engine holds {capacity} in {self.limits.max_rows}"
            )
        if len(job.adapters | self.shelf.pinned) > self.shelf.capacity:
            raise ExpertError(
                f"the request mixes {len(job.adapters)} adapters; {self.shelf.capacity} may be "
                f"resident, {len(self.shelf.pinned)} of them are pinned"
            )

    def cancel(self, job: Job) -> None:
        """Drop a job before the next step, if it is not over."""
        if not job.done:
            with self._wake:
                self._cancelled.add(job)
                self._tell()

    def _notify(self) -> None:
        with self._wake:
            self._tell()

    def _tell(self) -> None:
        self._news = True
        self._wake.notify()

    def _loop(self) -> None:
        try:
            while self._await_work():
                self._step()
        except Exception as error:
            # Last resort of the thread: nobody else can tell the callers that it has ended.
            logger.exception("the engine thread has failed")
            self._fail(error)

    def _await_work(self) -> bool:
        with self._wake:
            while not (self._stopping or self._waiting or self._running):
                self._cancelled.clear()
                self._wake.wait()
            return not self._stopping

    def _step(self) -> None:
        self._retire()
        self._admit()
        started = time.perf_counter()
        limits = self.limits
        busy = self._flights.rows
        busy |= share(self._running, busy, self.runner.arena)
        plan = plan_step(self._running, busy, limits.shared_step_tokens)
        if plan:
            self._deliver(plan, found_by(plan, self.runner.run(works_of(plan))))
        spent = time.perf_counter() - started if plan else _BREATH
        writing = len({part.job for part in plan})
        landed = self._flights.advance(self._running, spent, writing)
        if landed:
            self._deliver(*landed)
        if plan or landed:
            self.counters.seconds += time.perf_counter() - started
        else:
            # Nothing to run: all are over, or wait for an adapter, whose loader notifies. What was
            # told since the step began must not be slept through; deadlines pass without a word.
            with self._wake:
                self._wake.wait_for(lambda: self._news, timeout=0.1)

    def _deliver(self, plan: Sequence[Slice], found: Sequence[Found]) -> None:
        by_job: dict[Job, list[Found]] = {}
        for part, one in zip(plan, found, strict=True):
            by_job.setdefault(part.job, []).append(one)
            self._shares.count(part.job, part.count)
        self.counters.steps += bool(plan)
        self.counters.rows += len(plan)
        self.counters.tokens += sum(part.count for part in plan)
        for job, given in by_job.items():
            job.take(given)

    def _retire(self) -> None:
        """Drop what is over, cancelled or late."""
        now = time.monotonic()
        with self._wake:
            self._news = False
            gone, self._cancelled = self._cancelled, set()
            jobs = [*self._running, *self._waiting]
            late = {j for j in jobs if j.terms.deadline is not None and j.terms.deadline <= now}
            over = {j for j in jobs if j.done or j in gone or j in late}
            ended = [j for j in self._running if j in over]
            self._running = [j for j in self._running if j not in over]
            self._waiting = [j for j in self._waiting if j not in over]
        self._flights.drop(set(ended))
        for job in ended:
            self._release(job)
            self.shelf.release(job.adapters)
            self.counters.finished += job.done
            self.counters.guessed += job.guessed
            self.counters.guessed_right += job.guessed_right
        for job in late - gone:
            if not job.done:
                job.emit(Late("the deadline of the request has passed"))

    def _admit(self) -> None:
        """Let waiting jobs in while rows, memory and adapters last, in the order of their turns."""
        with self._wake:
            turns = self._shares.order(self._waiting)
        self.shelf.want([job.adapters for job in turns])
        loaded, evicted = self.shelf.collect()
        # In this order: one that came in too late for its turn may have to go at once.
        self.runner.load(loaded)
        self.runner.unload(evicted)
        rows = sum(len(job.rows) for job in self._running)
        started = []
        for job in turns:
            if not self._ready(job):
                continue
            # Who waits for room holds up those behind it: else a large request might wait for ever.
            if rows + len(job.rows) > self.limits.max_rows or not self._reserve(job):
                break
            self.shelf.hold(job.adapters)
            rows += len(job.rows)
            started.append(job)
        with self._wake:
            self._waiting = [j for j in self._waiting if not (j in started or j.done)]
            self._running += started
            self._shares.keep({j.terms.principal for j in (*self._running, *self._waiting)})

    def _ready(self, job: Job) -> bool:
        try:
            return self.shelf.ready(job.adapters)
        except AdapterError as error:
            job.done = True
            job.emit(ExpertError(str(error)))
            return False

    def _reserve(self, job: Job) -> bool:
        arena = self.runner.arena
        if not arena.fits(job.longest, len(job.rows)):
            # Trying would evict cached prefixes in vain.
            return False
        caches = [arena.reserve(job.longest) for _ in job.rows]
        granted = [cache for cache in caches if cache is not None]
        for row, cache in zip(job.rows, granted, strict=False):
            row.cache = cache
        if len(granted) < len(caches):
            self._release(job)
            return False
        prompt = job.tokens[: job.prompt]
        for row in job.rows:
            row.starts = self.runner.bank.starts(row.gate, prompt)
            row.shared = shared_length(row.gate, row.starts, job.prompt)
            arena.reuse(row.cache, row.key, prompt, row.shared)
        return True

    def _release(self, job: Job) -> None:
        for row in job.rows:
            if row.cache.capacity:
                if _acts_at_the_end(row, job.prompt):
                    row.cache.rewind(row.shared)
                self.runner.arena.release(row.cache, row.key, job.tokens, row.shared)
            row.cache = RowCache(0, 0)

    def _fail(self, error: BaseException) -> None:
        with self._wake:
            self.failure = error
            jobs = [*self._running, *self._waiting]
            self._running, self._waiting = [], []
        for job in jobs:
            job.emit(ExpertError(f"the expert failed: {error}"))


def _acts_at_the_end(row: Row, prompt: int) -> bool:
    # Nobody will look for what such an adapter made: the next turn has its invocation later.
    return row.key != BASE and row.shared > 0 and prompt - row.shared < BLOCK
