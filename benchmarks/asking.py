"""Requests to our engine as its clients make them, with the moments at which text arrives."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.prompts import Request
from benchmarks.workbench import Workbench, gate
from experts.detokenizer import Detokenizer
from experts.engine import Engine, WeightedGate
from experts.generation import Sampling

_numbers = itertools.count()


@dataclass
class Heard:
    """The text of an answer and the moments (`time.perf_counter`) of its parts."""

    asked: float
    text: str = ""
    at: list[float] = field(default_factory=list)
    tokens: int = 0

    @property
    def first(self) -> float:
        """Seconds to the first part."""
        return self.at[0] - self.asked

    @property
    def gaps(self) -> list[float]:
        """Seconds between parts."""
        return [b - a for a, b in itertools.pairwise(self.at)]


async def ask(
    engine: Engine, prompt: Sequence[int], expert: str, length: int, *, every: bool = False
) -> Heard:
    """One greedy answer of `length` tokens by one expert.

    Args:
        every: hear tokens without a text of their own too, by asking for log-probabilities.
    """
    heard = Heard(time.perf_counter())
    chosen = [WeightedGate(gate(expert), 1.0)]
    number = str(next(_numbers))
    sampling = Sampling(length, logprobs=0 if every else None)
    async for chunk in engine.generate(number, prompt, chosen, sampling):
        heard.at.append(time.perf_counter())
        heard.text += chunk.text
        if chunk.usage is not None:
            heard.tokens = chunk.usage.completion_tokens
    return heard


async def ask_all(
    engine: Engine,
    requests: Sequence[Request],
    prompts: Sequence[Sequence[int]],
    *,
    every: bool = False,
) -> list[Heard]:
    """All requests of a trace at their times; `every` as for `ask`."""
    started = time.perf_counter()

    async def one(request: Request, prompt: Sequence[int]) -> Heard:
        await asyncio.sleep(max(0.0, started + request.at - time.perf_counter()))
        return await ask(engine, prompt, request.expert, request.length, every=every)

    pairs = zip(requests, prompts, strict=True)
    return list(await asyncio.gather(*(one(request, prompt) for request, prompt in pairs)))


def spelled(bench: Workbench, tokens: Sequence[int]) -> list[str]:
    """The text after each token of an answer, spelt as our engine spells it."""
    detokenizer = Detokenizer(bench.runner().tokenizer)
    found, text = [], ""
    for token in tokens:
        text += detokenizer.push(token)
        found.append(text)
    found[-1] += detokenizer.flush()
    return found


def differs_at(bench: Workbench, text: str, tokens: Sequence[int]) -> int | None:
    """The place in `tokens` whose text is not in ours; None where the whole answer is the same."""
    steps = spelled(bench, tokens)
    if steps[-1] == text:
        return None
    places = (n for n, step in enumerate(steps) if not text.startswith(step))
    return next(places, len(tokens) - 1)
