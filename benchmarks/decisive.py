"""On which answers one expert is better than all others beyond the noise of their tokens.

The losses of an answer's tokens are paired between experts: the difference of two experts on a
token is one observation, and Student's t tells how far their mean is from 0, with a standard error
that minds how alike neighbouring tokens are (Hansen and Hodrick 1980). The best expert must beat
each other one: the largest p of these tests is the row's (intersection-union, Berger 1982),
two-sided, because the best was chosen by looking at the same tokens. Over all rows the rate of
false verdicts is held by Benjamini and Hochberg (1995): a figure of 0.985 says little where one
verdict in twenty is chance. Where neighbouring differences correlate by 0.2, chance passes for a
lead at 0.05 in 6 cases of a hundred.
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

FEWEST_TOKENS = 8
"""An answer of fewer tells nothing."""
_NEIGHBOURS = 3
"""How far apart tokens may lie whose differences go together."""
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
    """The lead among losses [experts, tokens] of one answer; of a short one its chance is 1."""
    best = int(losses.mean(axis=1).argmin())
    if losses.shape[1] < FEWEST_TOKENS:
        return Lead(best, 1.0)
    others = np.delete(losses, best, axis=0) - losses[best]
    return Lead(best, max(_chance(differences) for differences in others))


def _chance(differences: Floats) -> float:
    """The two-sided p of a mean above 0; 1 for one that is not."""
    mean, error = float(differences.mean()), _standard_error(differences)
    if mean <= 0.0:
        found = 1.0
    elif error == 0.0:
        found = 0.0
    else:
        found = two_sided(mean / error, len(differences) - 1)
    return found


def _standard_error(differences: Floats) -> float:
    around = differences - differences.mean()
    squares = float(around @ around)
    if squares == 0.0:
        return 0.0
    count, alike = len(around), 1.0
    for apart in range(1, _NEIGHBOURS + 1):
        alike += 2.0 * float(around[apart:] @ around[:-apart]) / squares
    # Never below that of independent tokens: few tokens estimate their likeness badly.
    return math.sqrt(squares / (count - 1) / count * max(1.0, alike))


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
