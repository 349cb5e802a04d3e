"""One decode step against the time that reading its weights takes."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import torch

from benchmarks.measure import interleave, ratios, seconds, spread
from benchmarks.report import Goal, Row, Section
from benchmarks.workbench import Workbench
from experts.runner import Runner, Work

GOALS = {"float32": 2.5, "int8": 5.0}
GIGABYTE = 1 << 30
CONTEXT = 16


def bandwidth(bench: Workbench) -> Section:
    """One row behind a short context, in float32 and int8."""
    block = torch.ones(bench.size(GIGABYTE, GIGABYTE // 16) // 4)
    sides: dict[str, Callable[[], float]] = {
        "sum": lambda: seconds(block.sum),
        "dot": lambda: seconds(lambda: torch.dot(block, block)),
        "threads": _threaded(block, bench.threads),
    }
    for dtype in GOALS:
        sides[dtype] = _step(bench.runner(dtype))
    times = interleave(sides, bench.rounds(21), warm=2)
    # The quickest way of reading is the strictest yardstick.
    reads = [
        min(found) for found in zip(*(times[s] for s in ("sum", "dot", "threads")), strict=True)
    ]
    size = block.numel() * 4
    rows = []
    for dtype, goal in GOALS.items():
        weights = weight_bytes(bench.runner(dtype), 4 if dtype == "float32" else 1)
        floor = [read * weights / size for read in reads]
        ms = spread([1000 * t for t in times[dtype]])
        rows.append(
            Row(
                f"a step, {dtype}, ÷ reading its weights",
                ratios(times[dtype], floor),
                Goal(goal),
                detail=f"{ms.median:.1f} ms; {weights / 1e6:.0f} MB",
            )
        )
    speed = spread([size / read / 1e9 for read in reads])
    rows.append(Row("threaded read", speed, unit="GB/s"))
    return Section("bandwidth", rows, [f"{bench.threads} threads"])


def weight_bytes(runner: Runner, width: int) -> int:
    """Bytes of the linear layers and the output head, which every step reads once."""
    linears = sum(inputs * outputs for inputs, outputs in runner.linears.values())
    head = len(runner.tokenizer) * next(iter(runner.linears.values()))[0]
    return (linears + head) * width


def _step(runner: Runner) -> Callable[[], float]:
    cache = runner.arena.reserve(CONTEXT + 2)
    if cache is None:
        raise MemoryError("the cache is too small for this benchmark")
    runner.run([Work(cache, {}, list(range(100, 100 + CONTEXT)), [])])

    def run() -> float:
        took = seconds(lambda: runner.run([Work(cache, {}, [42], [0])]))
        cache.rewind(CONTEXT)
        return took

    return run


def _threaded(block: torch.Tensor, threads: int) -> Callable[[], float]:
    parts = np.array_split(block.numpy().view(np.int64), threads)
    pool = ThreadPoolExecutor(threads)
    return partial(seconds, lambda: list(pool.map(np.bitwise_or.reduce, parts)))
