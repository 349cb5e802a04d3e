"""The expert engine: requests join and leave a running batch between steps.

One thread of its own owns the model. A step is: admit, schedule, run, deliver. Requests of any gate
and any mode share the step; a long prompt is cut into chunks so that running streams go on.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from experts.cache import RowCache
from experts.detokenizer import Detokenizer
from experts.gated import Gate
from experts.generation import Busy, Chunk, ExpertError, PromptTooLong, Sampling, Score
from experts.runner import Runner, Work
from experts.sequence import Answer, Event, Job, Row, Scored

logger = logging.getLogger(__name__)
_Event = TypeVar("_Event", Chunk, Score)


@dataclass(frozen=True)
class EngineLimits:
    """What one engine may hold at a time.

    `max_tokens_in_cache` bounds keys and values over all rows (bytes per token: `CacheShape`);
    `step_tokens` bounds one forward pass, and so how long a prompt chunk delays running streams.
    """

    context: int = 2048
    max_rows: int = 32
    max_waiting: int = 256
    max_tokens_in_cache: int = 65_536
    step_tokens: int = 256


@dataclass(frozen=True)
class WeightedGate:
    """One member of a token-level mixture."""

    gate: Gate
    weight: float


class Engine:
    """Tokens and gates in, streams of text with log-probabilities out.

    Start it with `start()`; `stop()` ends its thread. Methods are called from an event loop.
    """

    def __init__(self, runner: Runner, limits: EngineLimits) -> None:
        self.runner, self.limits = runner, limits
        self.context = min(limits.context, runner.context)
        self.failure: BaseException | None = None
        self._waiting: deque[Job] = deque()
        self._running: list[Job] = []
        self._cancelled: set[Job] = set()
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
        method: str = "",
        posterior: bool = False,
    ) -> AsyncGenerator[Chunk, None]:
        """Stream an answer. Leaving the iterator early frees the request's rows.

        `posterior` updates the members' weights by each token's likelihood under them.

        Raises:
            PromptTooLong: prompt and answer do not fit; Busy: the waiting line is full.
        """
        room = self.context - len(prompt)
        if room < 1:
            raise PromptTooLong(len(prompt), self.context - 1)
        mailbox = _Mailbox()
        answer = Answer(
            id,
            prompt,
            [self._row(m.gate, m.weight) for m in members],
            mailbox.put,
            sampling=_fit(sampling, room),
            seed=secrets.randbits(63) if sampling.seed is None else sampling.seed,
            ends=self.runner.ends,
            detokenizer=Detokenizer(self.runner.tokenizer, sampling.stop),
            method=method,
            posterior=posterior,
        )
        self._submit(answer)
        try:
            finished = False
            while not finished:
                chunk = await mailbox.get_chunk()
                finished = chunk.finish_reason is not None
                yield chunk
        finally:
            self._cancel(answer)

    async def score(self, id: str, prompt: Sequence[int], text: str, gate: Gate) -> Score:
        """Log-likelihood of `text` behind `prompt` under one gate, in nats.

        Raises:
            PromptTooLong: both do not fit the context together.
        """
        tokens = self.runner.tokenizer.encode(text, add_special_tokens=False)
        if len(prompt) + len(tokens) > self.context:
            raise PromptTooLong(len(prompt) + len(tokens), self.context)
        if not tokens:
            return Score(0.0, 0, 0)
        mailbox = _Mailbox()
        row, size = self._row(gate, 1.0), len(text.encode())
        job = Scored(id, prompt, tokens, row, mailbox.put, size=size)
        self._submit(job)
        try:
            return await mailbox.get_score()
        finally:
            self._cancel(job)

    def _row(self, gate: Gate, weight: float) -> Row:
        return Row(gate, weight, RowCache(self.runner.cache_shape))

    def _submit(self, job: Job) -> None:
        with self._wake:
            if self.failure is not None:
                raise ExpertError(f"the engine has failed: {self.failure}")
            if len(self._waiting) >= self.limits.max_waiting:
                raise Busy(f"{len(self._waiting)} requests are waiting for this expert already")
            if job.reserved > self.limits.max_tokens_in_cache or (
                len(job.rows) > self.limits.max_rows
            ):
                raise ExpertError(
                    f"the request needs {job.reserved} tokens of cache in {len(job.rows)} rows; "
                    f"this engine holds {self.limits.max_tokens_in_cache} in {self.limits.max_rows}"
                )
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
        self._admit()
        plan = self._schedule()
        works = [work for _, _, work, _ in plan]
        logits = self.runner.run(works) if works else []
        for (job, row, _work, positions), found in zip(plan, logits, strict=True):
            job.take(row, positions, found)

    def _admit(self) -> None:
        """Drop what is over or cancelled, then let waiting jobs in while rows and cache last."""
        with self._wake:
            gone = self._cancelled
            self._cancelled = set()
            self._running = [j for j in self._running if not j.done and j not in gone]
            self._waiting = deque(j for j in self._waiting if j not in gone)
            rows = sum(len(j.rows) for j in self._running)
            tokens = sum(j.reserved for j in self._running)
            while self._waiting:
                job = self._waiting[0]
                rows, tokens = rows + len(job.rows), tokens + job.reserved
                if rows > self.limits.max_rows or tokens > self.limits.max_tokens_in_cache:
                    break
                self._running.append(self._waiting.popleft())

    def _schedule(self) -> list[tuple[Job, Row, Work, range]]:
        """Rows of this step: single tokens first, then prompt chunks within the budget."""
        pending = [(len(row.pending(j.tokens)), j, row) for j in self._running for row in j.rows]
        budget = max(self.limits.step_tokens, len(pending))
        plan = []
        for length, job, row in sorted(pending, key=lambda item: min(item[0], 2)):
            count = min(length, budget)
            if count:
                budget -= count
                plan.append((job, row, *_work(job, row, count)))
        return plan

    def _fail(self, error: BaseException) -> None:
        with self._wake:
            self.failure = error
            jobs = [*self._running, *self._waiting]
            self._running, self._waiting = [], deque()
        for job in jobs:
            job.emit(ExpertError(f"the expert failed: {error}"))


def _work(job: Job, row: Row, count: int) -> tuple[Work, range]:
    start = row.cache.length
    positions = job.wanted(start, start + count)
    offsets = [p - start for p in positions]
    return Work(row.cache, row.gate, job.tokens[start : start + count], offsets), positions


def _fit(sampling: Sampling, room: int) -> Sampling:
    # An answer may end at the edge of the context; it then ends with reason `length`.
    return replace(sampling, max_tokens=min(sampling.max_tokens, room))


class _Mailbox:
    """Events from the engine's thread to a coroutine; chunks that are ready travel together."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Event] = asyncio.Queue()

    def put(self, event: Event) -> None:
        # A loop that is closing has no reader left; its request is cancelled with it.
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._queue.put_nowait, event)

    async def get_chunk(self) -> Chunk:
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

    async def get_score(self) -> Score:
        return await self._take(Score)

    async def _take(self, kind: type[_Event]) -> _Event:
        event = await self._queue.get()
        if isinstance(event, BaseException):
            raise event
        if not isinstance(event, kind):
            raise TypeError(f"expected {kind.__name__}, got {event!r}")
        return event
