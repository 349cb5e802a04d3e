"""The expert engine: requests join and leave a running batch between steps.

One thread of its own owns the model. A step is: admit, plan, run, deliver. Requests of any gate
and any method share the step; a long prompt is cut into chunks so that running streams go on.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace

from experts.answer import Writing
from experts.arena import RowCache
from experts.detokenizer import Detokenizer
from experts.dice import SeededDice
from experts.generation import (
    Busy,
    Chunk,
    ExpertError,
    Late,
    PromptTooLong,
    Sampling,
    Score,
)
from experts.job import USUAL, Found, Job, Row, Scored, Terms
from experts.limits import EngineLimits
from experts.lowrank import Gate
from experts.mailbox import Mailbox
from experts.method import Method, choose_method, write_by
from experts.runner import Runner, Work
from experts.schedule import FairShare, Slice, plan_step

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class WeightedGate:
    """One member of a token-level mixture."""

    gate: Gate
    weight: float


@dataclass
class Counters:
    """What an engine has done since it was started."""

    steps: int = 0
    rows: int = 0
    tokens: int = 0
    seconds: float = 0.0
    finished: int = 0


class Engine:
    """Tokens and gates in, streams of text with log-probabilities out.

    Start it with `start()`; `stop()` ends its thread. Methods are called from an event loop.
    """

    def __init__(self, runner: Runner, limits: EngineLimits) -> None:
        self.runner, self.limits = runner, limits
        self.context = min(limits.context, runner.context)
        self.counters = Counters()
        self.failure: BaseException | None = None
        self._waiting: list[Job] = []
        self._running: list[Job] = []
        self._cancelled: set[Job] = set()
        self._shares = FairShare()
        self._wake = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._loop, name="engine", daemon=True)

    def start(self) -> None:
        """Start the stepping thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread after the step in flight; open requests get an error."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        if self._thread.is_alive():
            self._thread.join()
        self._fail(ExpertError("the expert is shutting down"))

    @property
    def load(self) -> tuple[int, int]:
        """(running, waiting) requests."""
        return len(self._running), len(self._waiting)

    async def generate(
        self,
        id: str,
        prompt: Sequence[int],
        members: Sequence[WeightedGate],
        sampling: Sampling,
        *,
        posterior: bool = False,
        method: Method | None = None,
        terms: Terms = USUAL,
    ) -> AsyncGenerator[Chunk, None]:
        """Stream an answer. Leaving the iterator early frees the request's rows.

        Args:
            members: the rows of the answer; several are an exact mixture.
            posterior: update the members' weights by each token's likelihood under them.
            method: instead of the cheapest exact one.

        Raises:
            PromptTooLong: prompt and answer do not fit; Busy: the waiting line is full; Late: the
                deadline of `terms` has passed.
        """
        room = self.context - len(prompt)
        if room < 1:
            raise PromptTooLong(len(prompt), self.context - 1)
        mailbox = Mailbox()
        # An answer may end at the edge of the context; it then ends with reason `length`.
        sampling = replace(sampling, max_tokens=min(sampling.max_tokens, room))
        rows = [Row(member.gate, member.weight) for member in members]
        method = method or choose_method(rows, sampling, posterior=posterior)
        writing = Writing(
            sampling=sampling,
            dice=SeededDice(secrets.randbits(63) if sampling.seed is None else sampling.seed),
            ends=self.runner.ends,
            detokenizer=Detokenizer(self.runner.tokenizer, sampling.stop),
            method="" if method is Method.ALONE else str(method),
        )
        job = write_by(method, id, prompt, rows, mailbox.put, writing, posterior=posterior)
        self._submit(job, terms)
        try:
            finished = False
            while not finished:
                chunk = await mailbox.chunk()
                finished = chunk.finish_reason is not None
                yield chunk
        finally:
            self._cancel(job)

    async def score(
        self, id: str, prompt: Sequence[int], text: str, gate: Gate, terms: Terms = USUAL
    ) -> Score:
        """Log-likelihood of `text` behind `prompt` under one gate, in nats.

        Raises:
            PromptTooLong: both do not fit the context together.
        """
        tokens = self.runner.tokenizer.encode(text, add_special_tokens=False)
        if len(prompt) + len(tokens) > self.context:
            raise PromptTooLong(len(prompt) + len(tokens), self.context)
        if not tokens:
            return Score(0.0, 0, 0)
        mailbox = Mailbox()
        job = Scored(id, prompt, tokens, Row(gate), mailbox.put, size=len(text.encode()))
        self._submit(job, terms)
        try:
            return await mailbox.score()
        finally:
            self._cancel(job)

    def _submit(self, job: Job, terms: Terms) -> None:
        job.terms = terms
        with self._wake:
            if self.failure is not None:
                raise ExpertError(f"the engine has failed: {self.failure}")
            if len(self._waiting) >= self.limits.max_waiting:
                raise Busy(f"{len(self._waiting)} requests are waiting for this expert already")
            if job.longest * len(job.rows) > self.runner.arena.capacity or (
                len(job.rows) > self.limits.max_rows
            ):
                raise ExpertError(
                    f"the request needs {job.longest} tokens of cache in {len(job.rows)} rows; "
                    f"this engine holds {self.runner.arena.capacity} in {self.limits.max_rows}"
                )
            self._shares.arrive(job)
            self._waiting.append(job)
            self._wake.notify()

    def _cancel(self, job: Job) -> None:
        if not job.done:
            with self._wake:
                self._cancelled.add(job)
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
        plan = plan_step(self._running, limits.step_tokens, limits.shared_step_tokens)
        if plan:
            self._deliver(plan, self._run(plan))
            self.counters.steps += 1
            self.counters.rows += len(plan)
            self.counters.tokens += sum(part.count for part in plan)
            self.counters.seconds += time.perf_counter() - started

    def _run(self, plan: Sequence[Slice]) -> list[Found]:
        works, wanted = [], []
        for part in plan:
            row, start = part.feed.row, part.feed.row.cache.length
            positions = part.positions
            tokens = part.job.tokens[start : start + part.count]
            works.append(Work(row.cache, row.gate, tokens, [p - start for p in positions]))
            wanted.append(positions)
        logits = self.runner.run(works)
        return [
            Found(part.feed.row, positions, found)
            for part, positions, found in zip(plan, wanted, logits, strict=True)
        ]

    def _deliver(self, plan: Sequence[Slice], found: Sequence[Found]) -> None:
        by_job: dict[Job, list[Found]] = {}
        for part, one in zip(plan, found, strict=True):
            by_job.setdefault(part.job, []).append(one)
            self._shares.count(part.job, part.count)
        for job, given in by_job.items():
            job.take(given)

    def _retire(self) -> None:
        """Drop what is over, cancelled or late."""
        now = time.monotonic()
        with self._wake:
            gone, self._cancelled = self._cancelled, set()
            jobs = [*self._running, *self._waiting]
            late = {j for j in jobs if j.terms.deadline is not None and j.terms.deadline <= now}
            over = {j for j in jobs if j.done or j in gone or j in late}
            ended = [j for j in self._running if j in over]
            self._running = [j for j in self._running if j not in over]
            self._waiting = [j for j in self._waiting if j not in over]
        for job in ended:
            self._release(job)
            self.counters.finished += job.done
        for job in late - gone:
            if not job.done:
                job.emit(Late("the deadline of the request has passed"))

    def _admit(self) -> None:
        """Let waiting jobs in while rows and memory last, the fairest choice first."""
        with self._wake:
            rows = sum(len(job.rows) for job in self._running)
            while self._waiting:
                job = self._shares.choose(self._waiting)
                # The one whose turn it is waits for room, and the others behind it: else a large
                # request might wait for ever.
                if rows + len(job.rows) > self.limits.max_rows or not self._reserve(job):
                    break
                rows += len(job.rows)
                self._waiting.remove(job)
                self._running.append(job)
            self._shares.keep({j.terms.principal for j in (*self._running, *self._waiting)})

    def _reserve(self, job: Job) -> bool:
        arena = self.runner.arena
        caches = [arena.reserve(job.longest) for _ in job.rows]
        granted = [cache for cache in caches if cache is not None]
        for row, cache in zip(job.rows, granted, strict=False):
            row.cache = cache
        if len(granted) < len(caches):
            self._release(job)
            return False
        for row in job.rows:
            arena.reuse(row.cache, row.key, job.tokens[: job.prompt])
        return True

    def _release(self, job: Job) -> None:
        for row in job.rows:
            if row.cache.capacity:
                self.runner.arena.release(row.cache, row.key, job.tokens)
            row.cache = RowCache(0, 0)

    def _fail(self, error: BaseException) -> None:
        with self._wake:
            self.failure = error
            jobs = [*self._running, *self._waiting]
            self._running, self._waiting = [], []
        for job in jobs:
            job.emit(ExpertError(f"the expert failed: {error}"))
