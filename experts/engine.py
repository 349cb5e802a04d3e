"""The expert engine: tokens and gates in, streams of text with log-probabilities out.

Requests join and leave a running batch between steps. Requests of any gate and any method share a
step; a long prompt is cut into chunks so that running streams go on.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace

from experts.answer import Writing
from experts.counters import Counters
from experts.detokenizer import Detokenizer
from experts.dice import SeededDice
from experts.generation import Chunk, PromptTooLong, Sampling, Score
from experts.job import USUAL, Row, Scored, Terms
from experts.limits import EngineLimits
from experts.loop import StepLoop
from experts.lowrank import Gate
from experts.mailbox import Mailbox
from experts.method import Method, choose_method, write_by
from experts.runner import Runner
from experts.shelf import AdapterShelf


@dataclass(frozen=True)
class WeightedGate:
    """One member of a token-level mixture."""

    gate: Gate
    weight: float


class Engine:
    """One base model with its adapters, for many requests at a time.

    Start it with `start()`; `stop()` ends its thread. Methods are called from an event loop.

    Args:
        shelf: where adapters come from; without one, those that the runner has loaded.
    """

    def __init__(
        self, runner: Runner, limits: EngineLimits, shelf: AdapterShelf | None = None
    ) -> None:
        self.runner, self.limits = runner, limits
        self.context = min(limits.context, runner.context)
        self.shelf = shelf or AdapterShelf.of(runner.bank.names)
        self._loop = StepLoop(runner, limits, self.shelf)

    def start(self) -> None:
        """Start the stepping thread."""
        self._loop.start()

    def stop(self) -> None:
        """End the thread after the step in flight; open requests get an error."""
        self._loop.stop()

    @property
    def load(self) -> tuple[int, int]:
        """(running, waiting) requests."""
        return self._loop.load

    @property
    def failure(self) -> BaseException | None:
        """Why the engine can no longer answer, if so."""
        return self._loop.failure

    @property
    def counters(self) -> Counters:
        """What it has done since it was started."""
        return self._loop.counters

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
        self._loop.submit(job, terms)
        try:
            finished = False
            while not finished:
                chunk = await mailbox.chunk()
                finished = chunk.finish_reason is not None
                yield chunk
        finally:
            self._loop.cancel(job)

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
        self._loop.submit(job, terms)
        try:
            return await mailbox.score()
        finally:
            self._loop.cancel(job)
