"""How long a reader waits: the first token beside a long prompt, and the gaps of a stream."""

from __future__ import annotations

import asyncio
import random
import statistics

from benchmarks.asking import Heard, ask, ask_all
from benchmarks.measure import Spread, spread
from benchmarks.prompts import EXPERTS, Request, ragged_text
from benchmarks.report import Goal, Row, Section
from benchmarks.workbench import Workbench, running, settle
from experts.engine import Engine

STREAMS = 8


def latency(bench: Workbench) -> Section:
    """First token of a short request beside a 2,000-token prompt, and gaps of 8 streams."""
    rows = [*asyncio.run(_first(bench)), *asyncio.run(_gaps(bench))]
    return Section("latency", rows, [f"our dtype {bench.dtype}"])


async def _first(bench: Workbench) -> list[Row]:
    dice = random.Random(1)
    idle, busy = [], []
    async with running(bench.runner()) as engine:
        for number in range(-1, bench.rounds(9)):
            settle(engine)
            alone = await _short(bench, engine, dice)
            long = [dice.randrange(10, 40_000) for _ in range(bench.size(2000, 1000))]
            reading = asyncio.create_task(ask(engine, long, EXPERTS[1], 1))
            # Somewhere in the long prompt, never at the same place of a step.
            await asyncio.sleep(0.2 + 0.3 * dice.random())
            beside = await _short(bench, engine, dice)
            overlapped = not reading.done()
            await reading
            if number >= 0 and overlapped:
                idle.append(alone)
                busy.append(beside)
    if not idle:
        raise RuntimeError("the long prompt was over before the short request came")
    return [
        Row(
            "first token beside a 2,000-token prompt vs idle",
            spread([b / i for b, i in zip(busy, idle, strict=True)]),
            Goal(2.0),
            detail=f"idle {1000 * statistics.median(idle):.0f} ms",
        )
    ]


async def _short(bench: Workbench, engine: Engine, dice: random.Random) -> float:
    heard = await ask(engine, bench.prompt(ragged_text(dice, 0)), EXPERTS[0], 2)
    return heard.first


async def _gaps(bench: Workbench) -> list[Row]:
    together: list[tuple[float, float, float]] = []
    joined: list[tuple[float, float, float]] = []
    async with running(bench.runner()) as engine:
        for number in range(bench.rounds(3)):
            for apart, found in ((0.0, together), (0.4, joined)):
                heard = await _streams(bench, engine, apart, number)
                settle(engine)
                found.append(_tail(heard, started=max(one.at[0] for one in heard)))
    return [
        _gap_row("p99 gap ÷ median, 8 streams, all started", together, Goal(2.0)),
        _gap_row("the same, prompts joining every 0.4 s", joined, Goal(2.0), everything=True),
    ]


async def _streams(bench: Workbench, engine: Engine, apart: float, seed: int) -> list[Heard]:
    engine.runner.arena.clear()
    dice = random.Random(seed)
    length = bench.size(96, 16)
    requests = [
        Request(n * apart, EXPERTS[n % len(EXPERTS)], ragged_text(dice, 2), length)
        for n in range(STREAMS)
    ]
    # The runner ends no answer, so end tokens are among the streamed: they have no text.
    prompts = [bench.prompt(r.text) for r in requests]
    return await ask_all(engine, requests, prompts, every=True)


def _tail(heard: list[Heard], started: float) -> tuple[float, float, float]:
    """Median gap in ms, p99 ÷ median behind the last prompt, and the same over everything."""
    after = [
        b - a for one in heard for a, b in zip(one.at, one.at[1:], strict=False) if a >= started
    ]
    every = [gap for one in heard for gap in one.gaps]
    middle = statistics.median(after)
    return 1000 * middle, _p99(after) / middle, _p99(every) / statistics.median(every)


def _p99(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.99)]


def _gap_row(
    name: str, found: list[tuple[float, float, float]], goal: Goal | None, everything: bool = False
) -> Row:
    value: Spread = spread([f[2] if everything else f[1] for f in found])
    return Row(
        name, value, goal, detail=f"median gap {statistics.median(f[0] for f in found):.1f} ms"
    )
