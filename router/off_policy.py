"""What another router would have scored, estimated from the decisions of the one that acted.

Row i of a log holds a choice a_i, its score r_i and its propensity p_i; the other router would have
chosen b_i. With w_i = 1[a_i = b_i] / p_i, over the n rows on which chance had a say:

- inverse propensity:            mean(w r)
- the same, self-normalised:     sum(w r) / sum(w)
- doubly robust:                 mean(m(b) + w (r − m(a))), m a model of scores (`reward_model.py`)

Doubly robust after M. Dudík, J. Langford, L. Li, "Doubly Robust Policy Evaluation and Learning"
(2011, arXiv:1103.4601); self-normalised after A. Swaminathan, T. Joachims, "The Self-Normalized
Estimator for Counterfactual Learning" (2015). Where nothing was left to chance, w knows nothing of
choices that were not made; then only the mean over rows on which both agree is given, as in the
replay of L. Li et al. (2011, arXiv:1003.5956), which asks for choices at random to be unbiased.

A choice is a set of experts; their weights within it are not told apart. Intervals are percentiles
of a bootstrap over clusters (a session is one), at 95 %.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from router.draw import propensity
from router.intervals import RESAMPLES, Interval
from router.logged_decision import LoggedDecision
from router.reward_model import Choice, Floats, Indices, cross_fitted, describe

LEAST_EFFECTIVE = 100.0
MOST_OF_ONE = 0.1
MOST_UNSEEN = 0.05
"""Overlap is thin with fewer effective rows, a larger weight of one row (as a share of all), or a
larger share of rows whose choice the log could never have seen."""


@dataclass(frozen=True)
class Appraisal:
    """The mean score that another router would have got, −1 to 1, each figure with its interval.

    `scored` rows have a score, `random` of them were decided with chance in force; the estimates
    are over those, and None without any. `logged` is the mean of what acted and `gain` how far
    `doubly_robust` is above it, both over the same rows as the estimates (over all without any).
    `agreeing` is the share of all rows on which both chose alike, `replay` the mean over them.
    `effective` is (sum w)² / sum w², the rows that the estimates are worth; `unseen` the share of
    random rows whose choice had no chance to be logged. `warnings` say what not to trust.
    """

    scored: int
    random: int
    agreeing: float
    logged: Interval
    replay: Interval | None
    inverse_propensity: Interval | None
    self_normalised: Interval | None
    doubly_robust: Interval | None
    gain: Interval | None
    effective: float
    unseen: float
    warnings: tuple[str, ...]


def appraise(
    logged: Sequence[LoggedDecision],
    wanted: Sequence[Choice],
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Appraisal:
    """Return the appraisal of a router that would have chosen `wanted`, row by row.

    Raises `ValueError` where no row has a score.
    """
    pairs = [
        (row, choice) for row, choice in zip(logged, wanted, strict=True) if row.score is not None
    ]
    if not pairs:
        raise ValueError("no decision with a score: there is nothing to estimate from.")
    table = _Table([row for row, _ in pairs], [choice for _, choice in pairs])
    everything = _Resampled(table.sums(), table.clusters, resamples, seed)
    drawn = table.at(np.flatnonzero([row.draw.rate > 0.0 for row, _ in pairs]))
    replayed = everything.ratio("agreeing score", "agreeing")
    if not drawn.rows:
        return _by_agreement(table, _sure(everything.ratio("score", "row")), replayed)
    found = _Resampled(drawn.sums(), drawn.clusters, resamples, seed)
    unseen = float(np.mean([_chance(*pair) == 0.0 for pair in drawn.pairs()]))
    return Appraisal(
        scored=len(pairs),
        random=len(drawn.rows),
        agreeing=float(table.agrees.mean()),
        logged=_sure(found.ratio("score", "row")),
        replay=replayed,
        inverse_propensity=found.ratio("weighted score", "row"),
        self_normalised=found.ratio("weighted score", "weight"),
        doubly_robust=found.ratio("corrected", "row"),
        gain=found.ratio("gain", "row"),
        effective=effective(drawn.weights),
        unseen=unseen,
        warnings=_warnings(drawn, unseen),
    )


def effective(weights: Floats) -> float:
    """Return the number of equal weights that are worth as much as these (L. Kish, 1965)."""
    squares = float(np.square(weights).sum())
    return float(weights.sum()) ** 2 / squares if squares > 0.0 else 0.0


class _Table:
    """Scored rows with the choices of the other router, as arrays [n]."""

    def __init__(self, rows: Sequence[LoggedDecision], wanted: Sequence[Choice]) -> None:
        self.rows, self.wanted = list(rows), list(wanted)
        self.scores = np.array([row.score for row in rows], dtype=np.float64)
        self.agrees = np.array(
            [frozenset(row.chosen) == frozenset(b) for row, b in self.pairs()], dtype=np.float64
        )
        chances = np.array([row.draw.propensity for row in rows], dtype=np.float64)
        self.weights = self.agrees / chances
        keys = np.array([f"{row.tenant}\n{row.key}" for row in rows])
        self.clusters: Indices = np.unique(keys, return_inverse=True)[1].astype(np.int64)

    def pairs(self) -> list[tuple[LoggedDecision, Choice]]:
        return list(zip(self.rows, self.wanted, strict=True))

    def at(self, picked: Indices) -> _Table:
        rows = [self.rows[row] for row in picked]
        return _Table(rows, [self.wanted[row] for row in picked])

    def sums(self) -> dict[str, Floats]:
        """What the ratios are made of, by name."""
        corrected = self._corrected()
        return {
            "row": np.ones(len(self.rows)),
            "score": self.scores,
            "agreeing": self.agrees,
            "agreeing score": self.agrees * self.scores,
            "weight": self.weights,
            "weighted score": self.weights * self.scores,
            "corrected": corrected,
            "gain": corrected - self.scores,
        }

    def _corrected(self) -> Floats:
        experts = sorted({name for row in self.rows for name in row.chosen})
        probabilities = [row.probabilities for row in self.rows]
        taken = describe([row.chosen for row in self.rows], probabilities, experts)
        wanted = describe(self.wanted, probabilities, experts)
        of_taken, of_wanted = cross_fitted(taken, wanted, self.scores, self.clusters)
        return np.asarray(of_wanted + self.weights * (self.scores - of_taken))


class _Resampled:
    """Sums over rows, and over rows of clusters drawn again and again."""

    def __init__(
        self, values: dict[str, Floats], clusters: Indices, resamples: int, seed: int
    ) -> None:
        self._names = list(values)
        columns = np.stack([values[name] for name in self._names], axis=1)
        by_cluster = np.zeros((int(clusters.max()) + 1, columns.shape[1]))
        np.add.at(by_cluster, clusters, columns)
        dice, count = np.random.default_rng(seed), len(by_cluster)
        draws = (dice.integers(count, size=count) for _ in range(resamples))
        totals = [np.bincount(draw, minlength=count) @ by_cluster for draw in draws]
        self._totals = np.stack([by_cluster.sum(axis=0), *totals])

    def ratio(self, top: str, bottom: str) -> Interval | None:
        """A ratio of two sums with its interval; None where the bottom is 0."""
        above, below = (self._totals[:, self._names.index(name)] for name in (top, bottom))
        if below[0] == 0.0:
            return None
        found = above[below != 0.0] / below[below != 0.0]
        low, high = np.percentile(found[1:], [2.5, 97.5])
        return Interval(float(found[0]), float(low), float(high))


_NOTHING_RANDOM = (
    "nothing was left to chance (router.explore was 0), so the estimate is the mean over requests "
    "on which both routers chose alike; it says nothing about those on which they differ"
)


def _by_agreement(table: _Table, logged: Interval, replayed: Interval | None) -> Appraisal:
    """All that can be said where nothing was left to chance."""
    agreeing = float(table.agrees.mean())
    return Appraisal(
        scored=len(table.rows),
        random=0,
        agreeing=agreeing,
        logged=logged,
        replay=replayed,
        inverse_propensity=None,
        self_normalised=None,
        doubly_robust=None,
        gain=None,
        effective=float(table.agrees.sum()),
        unseen=1.0 - agreeing,
        warnings=(_NOTHING_RANDOM,),
    )


def _warnings(table: _Table, unseen: float) -> tuple[str, ...]:
    worth, total = effective(table.weights), float(table.weights.sum())
    found = []
    if worth < LEAST_EFFECTIVE:
        found.append(
            f"overlap is thin: the estimates are worth {worth:.0f} rows, {LEAST_EFFECTIVE:.0f} are "
            "the least to trust"
        )
    if total > 0.0 and table.weights.max() > MOST_OF_ONE * total:
        most = table.weights.max() / total
        found.append(f"one row alone holds {most:.0%} of the weight")
    if unseen > MOST_UNSEEN:
        found.append(
            f"on {unseen:.0%} of the rows the log could never have seen the choice (several "
            "experts that the policy did not choose together, or one without probability): there "
            "inverse propensity counts 0, self-normalised leaves out, doubly robust trusts its "
            "model"
        )
    return tuple(found)


def _chance(row: LoggedDecision, choice: Choice) -> float:
    return propensity(choice, row.draw.policy, row.probabilities, row.draw.rate)


def _sure(found: Interval | None) -> Interval:
    if found is None:
        raise ValueError("a mean over rows needs rows.")
    return found
