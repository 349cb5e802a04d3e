"""One greedy stream against transformers' `generate`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from benchmarks.asking import ask, differs_at
from benchmarks.measure import interleave, ratios, spread
from benchmarks.prompts import EXPERTS, QUESTIONS
from benchmarks.report import Goal, Row, Section
from benchmarks.workbench import Workbench, running

PROMPT = QUESTIONS[0]


def stream(bench: Workbench) -> Section:
    """Seconds for one answer of 128 tokens, prompt included, on both sides."""
    length = bench.size(128, 8)
    prompt, plain = bench.prompt(PROMPT), bench.plain()
    texts: list[str] = []
    answers: list[list[int]] = []

    def theirs() -> float:
        started = time.perf_counter()
        answers.append(plain.generate(prompt, length))
        return time.perf_counter() - started

    sides: dict[str, Callable[[], float]] = {
        "ours": lambda: _ours(bench, prompt, length, texts),
        "theirs": theirs,
    }
    times = interleave(sides, bench.rounds(5))
    differs = differs_at(bench, texts[-1], answers[-1])
    same = "the same text" if differs is None else f"another text from token {differs}"
    speed = spread([length / t for t in times["ours"]])
    rows = [
        Row(
            "one stream vs transformers generate",
            ratios(times["theirs"], times["ours"]),
            Goal(2.0, at_most=False),
            detail=same,
        ),
        Row("one stream, ours", speed, unit="tokens/s"),
    ]
    return Section("stream", rows, [f"{length} new tokens behind {len(prompt)}"])


def _ours(bench: Workbench, prompt: list[int], length: int, texts: list[str]) -> float:
    async def run() -> float:
        async with running(bench.runner()) as engine:
            started = time.perf_counter()
            heard = await ask(engine, prompt, EXPERTS[0], length)
            texts.append(heard.text)
            return time.perf_counter() - started

    return asyncio.run(run())
