"""Whether recent requests are other than those that the gate was trained for.

Two questions, since traffic may ask the experts in other shares without asking them anything new.
The mix: the population stability index over who leads, Σ (a − e) ln(a / e) of the shares now and
then (N. Siddiqi, Credit Risk Scorecards, 2006: under 0.1 steady, over 0.25 a shift). The content:
the maximum mean discrepancy of sentence vectors under a Gaussian kernel as wide as their median
distance (Gretton et al., A kernel two-sample test, JMLR 2012), between as many rows of either side
of each leader, so that the mix plays no part in it. Both have p-values by permutation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]

PERMUTATIONS = 999
MOST_ROWS = 400
"""Of each side; the kernel is quadratic in them."""

LEAST_ROWS = 20
MIX_SHIFT = 0.25
SIGNIFICANT = 0.01


@dataclass(frozen=True)
class Shift:
    """A distance, and the chance of at least that much where nothing changed; from `rows` rows."""

    value: float
    p_value: float
    rows: int


@dataclass(frozen=True)
class Drift:
    """The shifts of mix and content; None where there are too few rows to tell."""

    mix: Shift | None
    content: Shift | None

    @property
    def drifted(self) -> bool:
        """Whether either shift is beyond chance, that of the mix also large."""
        mix, content = self.mix, self.content
        moved = mix is not None and mix.value >= MIX_SHIFT and mix.p_value <= SIGNIFICANT
        return moved or (content is not None and content.p_value <= SIGNIFICANT)


def measure_drift(
    now: tuple[Array, Places], then: tuple[Array, Places], leaders: int, seed: int = 0
) -> Drift:
    """Return the shifts from `then` to `now`: vectors [rows, d], and who leads each [rows]."""
    if min(len(now[0]), len(then[0])) < LEAST_ROWS:
        return Drift(None, None)
    dice = np.random.default_rng(seed)
    return Drift(_mix(now[1], then[1], leaders, dice), _content(now, then, dice))


def stability_index(actual: npt.NDArray[Any], expected: npt.NDArray[Any]) -> Array:
    """Return the population stability index of counts [..., classes] against others.

    Half a count is added to each class, so that an empty one is no infinity.
    """
    a = (actual + 0.5) / (actual + 0.5).sum(axis=-1, keepdims=True)
    e = (expected + 0.5) / (expected + 0.5).sum(axis=-1, keepdims=True)
    return np.asarray(((a - e) * np.log(a / e)).sum(axis=-1), dtype=np.float64)


def discrepancy(kernel: Array, first: int) -> float:
    """Return the unbiased squared discrepancy of the `first` rows of a kernel and the others."""
    ours, theirs = kernel[:first, :first], kernel[first:, first:]
    n, m = len(ours), len(theirs)
    within = (ours.sum() - np.trace(ours)) / (n * (n - 1))
    within += (theirs.sum() - np.trace(theirs)) / (m * (m - 1))
    return float(within - 2.0 * kernel[:first, first:].mean())


def gaussian(rows: Array) -> Array:
    """Return the Gaussian kernel [n, n] of rows [n, d], as wide as their median distance."""
    squares = (rows**2).sum(axis=1)
    apart = np.maximum(squares[:, None] + squares[None, :] - 2.0 * rows @ rows.T, 0.0)
    middle = float(np.median(apart[np.triu_indices(len(rows), k=1)]))
    return np.asarray(np.exp(-apart / (middle or 1.0)), dtype=np.float64)


def _mix(now: Places, then: Places, leaders: int, dice: np.random.Generator) -> Shift:
    actual = np.bincount(now, minlength=leaders)
    expected = np.bincount(then, minlength=leaders)
    found = float(stability_index(actual, expected))
    pooled = actual + expected
    drawn = dice.multivariate_hypergeometric(pooled, len(now), PERMUTATIONS, method="marginals")
    return Shift(found, _p_value(stability_index(drawn, pooled - drawn), found), len(now))


def _content(
    now: tuple[Array, Places], then: tuple[Array, Places], dice: np.random.Generator
) -> Shift | None:
    ours, theirs = _matched(now[1], then[1], dice)
    if len(ours) < LEAST_ROWS:
        return None
    groups = now[1][ours]
    kernel = gaussian(np.concatenate([now[0][ours], then[0][theirs]]))
    count = len(ours)
    signs = np.repeat((1.0, -1.0), count) / count
    found = float(signs @ kernel @ signs)
    shuffled = np.stack([_within(groups, dice) for _ in range(PERMUTATIONS)], axis=1) / count
    chance = np.einsum("np,np->p", shuffled, kernel @ shuffled)
    return Shift(discrepancy(kernel, count), _p_value(chance, found), count)


def _matched(now: Places, then: Places, dice: np.random.Generator) -> tuple[Places, Places]:
    """Rows of either side, as many of each leader, in the same order of leaders."""
    common = np.intersect1d(now, then)
    sizes = {int(k): int(min((now == k).sum(), (then == k).sum())) for k in common}
    share = min(1.0, MOST_ROWS / max(1, sum(sizes.values())))
    ours, theirs = [], []
    for leader, size in sizes.items():
        count = max(1, int(size * share))
        ours.append(dice.permutation(np.flatnonzero(now == leader))[:count])
        theirs.append(dice.permutation(np.flatnonzero(then == leader))[:count])
    empty = np.zeros(0, dtype=np.int64)
    return np.concatenate([empty, *ours]), np.concatenate([empty, *theirs])


def _within(groups: Places, dice: np.random.Generator) -> Array:
    """Signs [2n] of a random exchange of sides among the rows of each leader."""
    signs = np.empty(2 * len(groups))
    for leader in np.unique(groups):
        at = np.flatnonzero(groups == leader)
        drawn = dice.permutation(np.repeat((1.0, -1.0), len(at)))
        signs[at], signs[at + len(groups)] = drawn[: len(at)], drawn[len(at) :]
    return signs


def _p_value(chance: Array, found: float) -> float:
    # Rounding must not make equal values differ.
    return float((1 + (chance >= found - 1e-12).sum()) / (1 + len(chance)))
