"""One greedy stream against transformers' `generate`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from benchmarks.asking import ask, differs_at
from benchmarks.measure import interleave, ratios, spread
from benchmarks.prompts import EXPERTS, QUESTIONS
from benchmarks.report import Goal, Row, Section
from benchmarks.workbench import Workbench, running
from experts.lookahead import MOST_GUESSES


class _Streams:
    """One question after the other, each asked of every side in one round."""

    def __init__(self, bench: Workbench) -> None:
        self.bench = bench
        self.length = bench.size(128, 8)
        self.prompts = [bench.prompt(question) for question in QUESTIONS]
        self.texts: dict[int, str] = {}
        self.answers: dict[int, list[int]] = {}
        self.sides: dict[str, Callable[[], float]] = {
            "ours": lambda: self._timed(self._ours),
            "guessing": lambda: self._timed(lambda n: self._theirs(n, MOST_GUESSES)),
            "theirs": lambda: self._timed(lambda n: self._theirs(n, 0)),
        }
        self._calls = 0

    @property
    def agreement(self) -> str:
        """How many answers are the same on both sides."""
        asked = self.texts.keys() & self.answers.keys()
        same = sum(differs_at(self.bench, self.texts[n], self.answers[n]) is None for n in asked)
        return f"{same} of {len(asked)} answers the same"

    def _timed(self, answer: Callable[[int], None]) -> float:
        number = self._calls // len(self.sides) % len(self.prompts)
        self._calls += 1
        started = time.perf_counter()
        answer(number)
        return time.perf_counter() - started

    def _theirs(self, number: int, guesses: int) -> None:
        found = self.bench.plain().generate(self.prompts[number], self.length, guesses)
        self.answers[number] = found

    def _ours(self, number: int) -> None:
        async def run() -> str:
            async with running(self.bench.runner()) as engine:
                return (await ask(engine, self.prompts[number], EXPERTS[0], self.length)).text

        self.texts[number] = asyncio.run(run())


def stream(bench: Workbench) -> Section:
    """Seconds for answers of 128 tokens, prompt included, on all sides."""
    streams = _Streams(bench)
    bench.runner()
    bench.plain()
    times = interleave(streams.sides, bench.rounds(8))
    ours: Sequence[float] = times["ours"]
    rows = [
        Row(
            "one stream vs transformers generate",
            ratios(times["theirs"], ours),
            Goal(2.0, at_most=False),
            detail=streams.agreement,
        ),
        Row("the same vs generate with prompt lookup", ratios(times["guessing"], ours)),
        Row("one stream, ours", spread([streams.length / t for t in ours]), unit="tokens/s"),
    ]
    return Section("stream", rows, [f"{streams.length} new tokens, a question a round"])
