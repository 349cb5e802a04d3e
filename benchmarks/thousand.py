"""A thousand adapters on disk, served through few resident slots, against four that stay."""

from __future__ import annotations

import asyncio
import itertools
import random
import statistics
import time
from bisect import bisect
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from benchmarks.adapters import adapter_folders, write_adapters
from benchmarks.asking import ask
from benchmarks.measure import interleave, ratios, seconds, spread
from benchmarks.prompts import ragged_text
from benchmarks.report import Goal, Row, Section
from benchmarks.workbench import MODEL, Workbench, running
from experts.adapters import Adapter, load_adapter
from experts.engine import Engine
from experts.local import LocalSpec
from experts.runner import Runner
from experts.shelf import AdapterShelf, ShelfCounters

EXPONENT = 1.0
AT_ONCE, FEW = 8, 4
LENGTHS = (16, 32)


@dataclass(frozen=True)
class Draw:
    """One request: a place in [0, 1) of the law of popularity, prompt, answer length in tokens."""

    place: float
    prompt: Sequence[int]
    length: int


@dataclass
class Swaps:
    """Seconds of each load since it was asked for: until the adapter was read and checked
    (`loads`), and until rows could use it, which waits for the step in flight (`waits`)."""

    loads: list[float] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)


class TimedShelf(AdapterShelf):
    """A shelf that notes how long a missing adapter took, where its loading really runs."""

    def __init__(self, load: Callable[[str], Adapter], capacity: int, swaps: Swaps) -> None:
        def timed(name: str) -> Adapter:
            found = load(name)
            self._read[name] = time.perf_counter()
            return found

        super().__init__(timed, capacity=capacity)
        self._swaps = swaps
        self._asked: dict[str, float] = {}
        self._read: dict[str, float] = {}

    def want(self, turns: Iterable[Collection[str]]) -> None:
        """See `AdapterShelf`; notes when a missing adapter was asked for."""
        now, before = time.perf_counter(), set(self._loading)
        super().want(turns)
        self._asked |= dict.fromkeys(self._loading.keys() - before, now)

    def collect(self) -> tuple[list[Adapter], list[str]]:
        """See `AdapterShelf`; notes how long what came in took."""
        loaded, evicted = super().collect()
        now = time.perf_counter()
        for adapter in loaded:
            asked = self._asked.pop(adapter.name)
            self._swaps.loads.append(self._read.pop(adapter.name) - asked)
            self._swaps.waits.append(now - asked)
        return loaded, evicted


class Library:
    """Adapters on disk behind a shelf that keeps its residents from one run to the next."""

    def __init__(self, runner: Runner, folders: Mapping[str, Path], capacity: int) -> None:
        self.runner, self.folders, self.capacity = runner, folders, capacity
        self.swaps: list[Swaps] = []
        self.counters: list[ShelfCounters] = []
        self._popular = _zipf(len(folders))
        self._names = list(folders)
        self._resident: list[str] = []

    def play(self, draws: Sequence[Draw]) -> float:
        """Seconds for all requests, `AT_ONCE` at a time; the next comes when one is over."""
        self.swaps.append(Swaps())
        shelf = TimedShelf(self._load, self.capacity, self.swaps[-1])
        for name in self._resident:
            shelf.adopt(name)

        async def run() -> float:
            async with running(self.runner, shelf=shelf) as engine:
                started = time.perf_counter()
                waiting = iter(draws)
                await asyncio.gather(*(self._client(engine, waiting) for _ in range(AT_ONCE)))
                return time.perf_counter() - started

        took = asyncio.run(run())
        self._resident = shelf.resident
        self.counters.append(shelf.counters)
        return took

    def alone(self) -> list[float]:
        """Seconds of reading some of the adapters while nothing else goes on."""
        return [seconds(partial(self._load, name)) for name in self._names[-AT_ONCE:]]

    def close(self) -> None:
        """Take its adapters out of the runner."""
        self.runner.unload(self._resident)

    async def _client(self, engine: Engine, waiting: Iterator[Draw]) -> None:
        for draw in waiting:
            name = self._names[bisect(self._popular, draw.place)]
            heard = await ask(engine, draw.prompt, name, draw.length)
            if heard.tokens != draw.length:
                raise RuntimeError(f"{heard.tokens} tokens instead of {draw.length}")

    def _load(self, name: str) -> Adapter:
        found = load_adapter(name, self.folders[name], self.runner.linears, MODEL)
        return found.like(self.runner.bank.like)


def thousand(bench: Workbench) -> Section:
    """Tokens per second with a thousand adapters ÷ with four, and how long a swap takes."""
    folders = _folders(bench)
    runner = bench.runner()
    slots = bench.size(LocalSpec.resident, AT_ONCE)
    many = Library(runner, {path.name: path for path in folders}, slots)
    few = Library(runner, {f"stays-{path.name}": path for path in folders[:FEW]}, FEW)
    draws = _draws(bench)
    # The first round fills the slots and does not count.
    sides = {"thousand": lambda: many.play(draws), "four": lambda: few.play(draws)}
    times = interleave(sides, bench.rounds(4), warm=1)
    for library in (many, few):
        library.close()
    tokens = sum(draw.length for draw in draws)
    notes = [
        f"{len(draws)} requests of {sum(len(d.prompt) for d in draws)} prompt and {tokens} new "
        f"tokens, {AT_ONCE} at a time, Zipf's law with exponent {EXPONENT}",
        f"{len(folders)} adapters on disk, {slots} resident; files in the system's cache",
        _tally(many),
        f"a load beside nothing else takes {1000 * statistics.median(many.alone()):.1f} ms",
        f"our dtype {bench.dtype}",
    ]
    return Section("thousand", _rows(len(folders), times, tokens, many.swaps[1:]), notes)


def _rows(
    count: int, times: Mapping[str, Sequence[float]], tokens: int, swaps: Sequence[Swaps]
) -> list[Row]:
    loads = [1000 * second for one in swaps for second in one.loads]
    waits = [1000 * second for one in swaps for second in one.waits]
    tails = [1000 * _quantile(one.loads, 0.95) for one in swaps if one.loads]
    usable = spread(waits)
    speeds = {name: spread([tokens / t for t in taken]) for name, taken in times.items()}
    return [
        Row(
            f"{count:,} adapters vs {FEW}",
            ratios(times["four"], times["thousand"]),
            Goal(0.9, at_most=False),
        ),
        Row(
            "swap-in, p50",
            spread(loads),
            Goal(30.0),
            detail=f"usable after {usable.median:.0f} ms: the step in flight ends first",
            unit="ms",
        ),
        Row("swap-in, p95", spread(tails), unit="ms"),
        Row(f"{count:,} adapters", speeds["thousand"], unit="tokens/s"),
        Row(f"{FEW} adapters", speeds["four"], unit="tokens/s"),
    ]


def _folders(bench: Workbench) -> list[Path]:
    if bench.adapters is None:
        return write_adapters(bench.scratch / "thousand", bench.size(1000, 24))
    found = adapter_folders(bench.adapters)
    if len(found) <= AT_ONCE:
        raise SystemExit(
            f"--adapters: {str(bench.adapters)!r} holds {len(found)} adapters, more than {AT_ONCE} "
            "are needed: write them with `python -m benchmarks.adapters`"
        )
    return found


def _draws(bench: Workbench) -> list[Draw]:
    dice = random.Random(7)
    return [
        Draw(
            dice.random(),
            bench.prompt(ragged_text(dice, 0)),
            dice.randint(*(LENGTHS if not bench.quick else (4, 8))),
        )
        for _ in range(bench.size(160, 24))
    ]


def _zipf(count: int) -> list[float]:
    """Upper ends in [0, 1] of the ranks' shares, the most popular first."""
    shares = list(itertools.accumulate(1 / rank**EXPONENT for rank in range(1, count + 1)))
    # Without the last end: rounding must not put a place behind all ranks.
    return [share / shares[-1] for share in shares[:-1]]


def _quantile(values: Sequence[float], share: float) -> float:
    return sorted(values)[int(len(values) * share)]


def _tally(library: Library) -> str:
    """Hits are requests whose adapter was there when it was their turn to ask for it."""
    counted = library.counters[1:]
    jobs = sum(counters.hits for counters in counted)
    loads = sum(counters.loads for counters in counted)
    evictions = sum(counters.evictions for counters in counted)
    return f"{jobs} requests, {1 - loads / jobs:.0%} hits, {loads} loads, {evictions} evictions"
