"""Paired measurement: sides run in turns in one process, ratios of pairs with their spread."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

RESAMPLES = 2000


@dataclass(frozen=True)
class Spread:
    """Median with the bootstrap 95 % interval of the median over `count` values."""

    median: float
    low: float
    high: float
    count: int


def spread(values: Sequence[float]) -> Spread:
    """The spread of values; the resampling is seeded."""
    dice = random.Random(0)
    medians = sorted(
        statistics.median(dice.choices(values, k=len(values))) for _ in range(RESAMPLES)
    )
    edge = int(RESAMPLES * 0.025)
    return Spread(statistics.median(values), medians[edge], medians[-edge - 1], len(values))


def quantile(values: Sequence[float], share: float) -> Spread:
    """A quantile with its bootstrap 95 % interval, in the place of the median."""
    dice = np.random.default_rng(0)
    draws = [np.quantile(dice.choice(values, len(values)), share) for _ in range(1000)]
    low, high = np.quantile(draws, [0.025, 0.975])
    return Spread(float(np.quantile(values, share)), float(low), float(high), len(values))


def ratios(top: Sequence[float], bottom: Sequence[float]) -> Spread:
    """The spread of top[n] / bottom[n]: what one round measured on both sides."""
    return spread([a / b for a, b in zip(top, bottom, strict=True)])


def seconds(action: Callable[[], object]) -> float:
    """How long one call takes, on a GPU until its work is done."""
    started = time.perf_counter()
    action()
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()
    return time.perf_counter() - started


def interleave(
    sides: Mapping[str, Callable[[], float]], rounds: int, warm: int = 1
) -> dict[str, list[float]]:
    """Each side's figure of every round; every other round runs in reverse order.

    Args:
        sides: name → a measurement that returns its own figure, usually seconds.
        warm: rounds before the first that counts.
    """
    found: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(-warm, rounds):
        names = list(sides) if number % 2 else list(sides)[::-1]
        for name in names:
            figure = sides[name]()
            if number >= 0:
                found[name].append(figure)
    return found


def take_turns(sides: Mapping[str, Iterator[float]], turn: int = 8) -> dict[str, float]:
    """Total seconds of each side, advanced in turns of `turn` steps until all are over.

    A side yields the seconds of each of its steps. Turns within one answer keep the noise of a
    shared machine on both sides of a ratio.
    """
    totals = dict.fromkeys(sides, 0.0)
    open_sides = dict(sides)
    while open_sides:
        for name, steps in list(open_sides.items()):
            for _ in range(turn):
                took = next(steps, None)
                if took is None:
                    del open_sides[name]
                    break
                totals[name] += took
    return totals
