"""Rows of different adapters in one step, against base rows and against PEFT's ways."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import torch

from benchmarks.measure import interleave, ratios, seconds, spread
from benchmarks.peers import Peer
from benchmarks.report import Goal, Row, Section
from benchmarks.workbench import FOURTH, Workbench
from experts.adapters import embedded_adapters
from experts.arena import RowCache
from experts.lowrank import Gate
from experts.runner import Runner, Work

CONTEXT = 128
SIZES = (4, 8)


def gated(bench: Workbench) -> Section:
    """Decode steps of 4 and 8 rows with 4 adapters behind a context of 128 tokens."""
    rows: list[Row] = []
    for size in SIZES:
        rows += _compare(bench, size)
    return Section("gated", rows, [f"decode steps behind {CONTEXT} tokens; gates built each step"])


def _compare(bench: Workbench, size: int) -> list[Row]:
    runner, peer = bench.with_fourth(), bench.peer()
    names = [[*embedded_adapters(), FOURTH][n % 4] for n in range(size)]
    dice = random.Random(size)
    ids = torch.tensor([[dice.randrange(10, 40_000) for _ in range(CONTEXT + 1)] for _ in names])
    ours = _Rows(runner, ids, [{name: 1.0} for name in names])
    base = _Rows(runner, ids, [{} for _ in names])
    sides: dict[str, Callable[[], float]] = {
        "gated": lambda: seconds(ours.step),
        "base": lambda: seconds(base.step),
        "mixed": _mixed(peer, ids, names),
    }
    if size == max(SIZES):
        sides["switched"] = _switched(peer, ids, names)
    times = interleave(sides, bench.rounds(25), warm=2)
    away = _difference(ours.step(), peer, ids, names)
    for rows in (ours, base):
        rows.close()
    runner.bank.unload(FOURTH)
    peer.use("general")
    return _rows(size, times, away)


def _rows(size: int, times: dict[str, list[float]], away: float) -> list[Row]:
    ms = spread([1000 * t for t in times["gated"]])
    found = [
        Row(
            f"{size} rows of 4 adapters vs base rows",
            ratios(times["gated"], times["base"]),
            Goal(1.12),
            detail=f"{ms.median:.1f} ms a step",
        ),
        Row(
            f"{size} rows: PEFT adapter_names ÷ ours",
            ratios(times["mixed"], times["gated"]),
            Goal(1.8, at_most=False),
            detail=f"largest difference of a logit {away:.1e}",
        ),
    ]
    if "switched" in times:
        found.append(
            Row(
                f"{size} requests: PEFT set_adapter one by one ÷ ours",
                ratios(times["switched"], times["gated"]),
                Goal(6.0, at_most=False),
            )
        )
    return found


class _Rows:
    """Rows of our runner that repeat one decode step."""

    def __init__(self, runner: Runner, ids: torch.Tensor, gates: Sequence[Gate]) -> None:
        self._runner, self._gates = runner, gates
        self._last = ids[:, -1].tolist()
        self._caches: list[RowCache] = []
        for row, gate in zip(ids[:, :-1].tolist(), gates, strict=True):
            cache = runner.arena.reserve(len(row) + 2)
            if cache is None:
                raise MemoryError("the cache is too small for this benchmark")
            runner.run([Work(cache, gate, row, [])])
            self._caches.append(cache)

    def step(self) -> torch.Tensor:
        works = [
            Work(cache, gate, [token], [0])
            for cache, gate, token in zip(self._caches, self._gates, self._last, strict=True)
        ]
        logits = self._runner.run(works)
        for cache in self._caches:
            cache.rewind(cache.length - 1)
        return torch.cat(logits)

    def close(self) -> None:
        for cache in self._caches:
            cache.rewind(0)
            self._runner.arena.release(cache, (), [])


def _mixed(peer: Peer, ids: torch.Tensor, names: Sequence[str]) -> Callable[[], float]:
    peer.use(names[0])
    cache = peer.prefill(ids[:, :-1], 2, names)

    def run() -> float:
        peer.use(names[0])
        return seconds(lambda: peer.step(ids[:, -1:], cache, names))

    return run


def _switched(peer: Peer, ids: torch.Tensor, names: Sequence[str]) -> Callable[[], float]:
    caches = []
    for row, name in zip(ids, names, strict=True):
        peer.use(name)
        caches.append(peer.prefill(row[None, :-1], 2))

    def one_by_one() -> None:
        for row, name, cache in zip(ids, names, caches, strict=True):
            peer.use(name)
            peer.step(row[None, -1:], cache)

    return lambda: seconds(one_by_one)


def _difference(ours: torch.Tensor, peer: Peer, ids: torch.Tensor, names: Sequence[str]) -> float:
    peer.use(names[0])
    cache = peer.prefill(ids[:, :-1], 2, names)
    theirs = peer.step(ids[:, -1:], cache, names)
    return float((ours - theirs).abs().max())
