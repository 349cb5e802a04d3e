"""On which answers one expert is better than all others beyond the noise of their tokens.

The losses of an answer's tokens are paired between experts: the difference of two experts on a
token is one observation. Neighbouring tokens are alike, so means of blocks of tokens are compared
instead (batch means, Law and Kelton 2000) by Student's t. The best expert must beat each other one:
the largest p of these tests is the row's (intersection-union, Berger 1982), two-sided, because the
best was chosen by looking at the same tokens. Over all rows the rate of false verdicts is held by
Benjamini and Hochberg (1995): a figure of 0.985 says little where one verdict in twenty is chance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.int64]

BLOCK = 4
"""Tokens of a block."""
FEWEST_BLOCKS = 3
RATE = 0.01
"""Share of the verdicts that may be false."""
Z = 1.959963984540054


@dataclass(frozen=True)
class Lead:
    """The expert with the least mean loss, and how likely a lead as large is by chance."""

    best: int
    chance: float


@dataclass(frozen=True)
class Hits:
    """A share of rows with the ends of its 95 % interval (Wilson 1927)."""

    hits: int
    rows: int
    value: float
    low: float
    high: float


def lead(losses: Floats) -> Lead:
    """The lead among losses [experts, tokens] of one answer.

    An answer of fewer than three blocks tells nothing: its chance is 1.
    """
    means = losses.mean(axis=1)
    best = int(means.argmin())
    blocks = losses.shape[1] // BLOCK
    if blocks < FEWEST_BLOCKS:
        return Lead(best, 1.0)
    parts = np.array_split(losses, blocks, axis=1)
    by_block = np.stack([part.mean(axis=1) for part in parts], axis=1)
    others = np.delete(by_block, best, axis=0) - by_block[best]
    return Lead(best, max(_chance(difference) for difference in others))


def _chance(differences: Floats) -> float:
    """The two-sided p of a mean above 0; 1 for one that is not."""
    mean, count = float(differences.mean()), len(differences)
    error = float(differences.std(ddof=1)) / math.sqrt(count)
    if mean <= 0.0:
        found = 1.0
    elif error == 0.0:
        found = 0.0
    else:
        found = two_sided(mean / error, count - 1)
    return found


def two_sided(t: float, freedom: int) -> float:
    """The chance that Student's t with so many degrees of freedom is farther from 0 than `t`.

    The finite series for whole degrees of freedom (Abramowitz and Stegun 26.7.3 and 26.7.4).
    """
    angle = math.atan(abs(t) / math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    total, term = 0.0, cosine if odd else 1.0
    for step in range(odd, freedom - 1, 2):
        total += term
        term *= cosine**2 * (step + 1) / (step + 2)
    within = 2.0 / math.pi * (angle + sine * total) if odd else sine * total
    return max(0.0, 1.0 - within)


def beyond_noise(chances: Sequence[float], rate: float = RATE) -> Flags:
    """[n] which rows are decided, at most a share `rate` of them falsely in expectation."""
    values = np.asarray(chances, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    steps = np.arange(1, len(values) + 1) / max(len(values), 1) * rate
    below = np.flatnonzero(values[order] <= steps)
    decided = np.zeros(len(values), dtype=np.bool_)
    if len(below):
        decided[order[: below[-1] + 1]] = True
    return decided


def hits(right: Flags) -> Hits:
    """The share of rows [n] that are right; of no rows it is 0 and may be anything."""
    count, rows = int(right.sum()), len(right)
    if not rows:
        return Hits(0, 0, 0.0, 0.0, 1.0)
    share = count / rows
    centre = share + Z**2 / (2 * rows)
    reach = Z * math.sqrt(share * (1 - share) / rows + Z**2 / (4 * rows**2))
    scale = 1 + Z**2 / rows
    low, high = max(0.0, (centre - reach) / scale), min(1.0, (centre + reach) / scale)
    return Hits(count, rows, share, low, high)
