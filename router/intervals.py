"""How sure a figure is: paired bootstrap intervals over rows, drawn within each stratum."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from router.trials import Floats, Indices

RESAMPLES = 1000


@dataclass(frozen=True)
class Interval:
    """A figure with the ends of its 95 % interval."""

    value: float
    low: float
    high: float


def bootstrap(
    statistic: Callable[[Indices], float],
    strata: Sequence[str],
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Return the statistic of all rows with its percentile interval over resampled rows.

    The statistic gets the indices of rows, with repetitions. Each resample holds as many rows of
    every stratum as there are; the same seed draws the same rows, so that two statistics of one
    call's rows, such as a ratio, are paired.
    """
    everything = np.arange(len(strata))
    names = np.asarray(strata)
    groups = [everything[names == name] for name in sorted(set(strata))]
    dice = np.random.default_rng(seed)
    found = [
        statistic(
            np.concatenate([group[dice.integers(len(group), size=len(group))] for group in groups])
        )
        for _ in range(resamples)
    ]
    low, high = np.percentile(found, [2.5, 97.5])
    return Interval(statistic(everything), float(low), float(high))


def mean_interval(
    values: Floats, strata: Sequence[str], resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Return the mean of values [n] with its interval."""
    return bootstrap(lambda rows: float(values[rows].mean()), strata, resamples, seed)


class Macro:
    """The mean over strata of the strata's means, quick enough to be resampled."""

    def __init__(self, strata: Sequence[str]) -> None:
        self.strata = tuple(strata)
        self._names, self._columns = np.unique(np.asarray(strata), return_inverse=True)

    def __call__(self, values: Floats, rows: Indices | None = None) -> float:
        """Return the macro mean of values [n] over these rows, or over all."""
        return float(np.mean(list(self.by_stratum(values, rows).values())))

    def by_stratum(self, values: Floats, rows: Indices | None = None) -> dict[str, float]:
        """Return the mean of values [n] of each stratum that occurs."""
        picked = np.arange(len(values)) if rows is None else rows
        columns = self._columns[picked]
        counts = np.bincount(columns, minlength=len(self._names))
        sums = np.bincount(columns, weights=values[picked], minlength=len(self._names))
        return {
            str(name): float(total / count)
            for name, total, count in zip(self._names, sums, counts, strict=True)
            if count
        }
