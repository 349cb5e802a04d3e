"""The risk that an earlier answer is not that of a new question, learnt from comparisons.

After vCache (L. G. Schroeder et al., "vCache: Verified Semantic Prompt Caching", 2025,
arXiv:2502.03771): no similarity is safe for all questions alike, so what is known of each answer
and of the questions around it decides, and a bound on the error takes the place of a threshold.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

CAUTION = 2.0
"""Standard deviations of the posterior by which a risk is taken to be larger than it seems."""

WINDOW = 2_000
"""Requests over which the share of wrong answers is kept."""

SPENT = 0.7
"""Share of the allowed error that is spent: the rest is for chance."""

_FEWEST = 100
_HIGHEST = 0.5
_PRECISION = 0.1
_STEPS = 12
_ENOUGH = 1e-4
_NEVER = 2.0


class HitRisk:
    """A logistic regression with a normal prior, and its posterior by Laplace's approximation."""

    def __init__(self) -> None:
        self._weights: Array | None = None
        self._covariance: Array = np.empty((0, 0))

    def fit(self, features: Sequence[Sequence[float]], same: Sequence[bool]) -> None:
        """Learn from comparisons: features [n, f] and outcomes [n].

        The posterior mode is found by Newton's method.
        """
        rows, right = np.asarray(features, np.float64), np.asarray(same, np.float64)
        weights = np.zeros(rows.shape[1])
        prior = np.full(rows.shape[1], _PRECISION)
        for _ in range(_STEPS):
            chance = _logistic(rows @ weights)
            gradient = rows.T @ (right - chance) - prior * weights
            spread = (rows * (chance * (1.0 - chance))[:, None]).T @ rows
            step = np.linalg.solve(spread + np.diag(prior), gradient)
            weights = np.asarray(weights + step, np.float64)
            if np.abs(step).max() < _ENOUGH:
                break
        self._weights = weights
        self._covariance = np.asarray(np.linalg.inv(spread + np.diag(prior)), np.float64)

    def risk(self, features: Sequence[float]) -> float:
        """The cautious probability that the answers differ; 1 before anything was learnt."""
        if self._weights is None:
            return 1.0
        row = np.asarray(features, np.float64)
        spread = float(np.sqrt(row @ self._covariance @ row))
        return 1.0 - float(_logistic(row @ self._weights - CAUTION * spread))


class Allowance:
    """Up to which risk an earlier answer may be given, so that few of all answers are wrong.

    Of the last `WINDOW` requests those with the smallest risks are counted in while their risks sum
    to no more than a share of the number of requests, `SPENT` of `max_error`; the largest of them
    is the limit.
    """

    def __init__(self, max_error: float) -> None:
        self._most = SPENT * max_error
        self._risks: deque[float] = deque(maxlen=WINDOW)
        self._limit, self._since = -1.0, 0

    @property
    def limit(self) -> float:
        """The largest risk that may be taken now; below 0 where none may."""
        if self._since >= max(1, len(self._risks) // 50):
            self._limit, self._since = self._computed(), 0
        return self._limit

    def note(self, risk: float | None) -> None:
        """Count a request with the risk that it offered; None where there was nothing to give."""
        self._risks.append(_NEVER if risk is None else risk)
        self._since += 1

    def _computed(self) -> float:
        if len(self._risks) < _FEWEST:
            return -1.0
        risks = np.sort(np.array(self._risks))
        shares = np.cumsum(risks) / len(risks)
        count = int(np.searchsorted(shares, self._most, side="right"))
        return min(float(risks[count - 1]), _HIGHEST) if count else -1.0


def _logistic(value: Array | float) -> Array:
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(value, -30.0, 30.0))))
