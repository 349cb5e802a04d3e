"""What decisions cost in nats, beside what they must beat at equal cost.

Any way of routing is a matrix of weights [n, experts]: a row's cost is the weighted mean of the
experts' losses on its known answer, its regret the cost less the least loss of any expert.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from router.calibration import Matrix
from router.intervals import RESAMPLES, Interval, Macro, bootstrap
from router.trials import Flags, Floats, Indices

SHUFFLED, UNIFORM, BEST_SINGLE = "shuffled", "uniform", "best single"
GENERALIST, ORACLE = "generalist", "oracle"
SHUFFLED_MIX = "shuffled mix"

_LEAST = 1e-12


@dataclass(frozen=True)
class Regret:
    """The regret of one way of routing, nats per answer token.

    `macro` is the mean over domains of the domains' means; `over_best_single` its ratio to that
    of the best single expert (None where that has no regret); `against_router` the router's macro
    regret minus this one's, over the same resampled rows: below 0 throughout, the router is better
    beyond chance.
    """

    macro: Interval
    by_domain: dict[str, float]
    over_best_single: Interval | None
    against_router: Interval


@dataclass(frozen=True, eq=False)
class Stakes:
    """Losses [n, experts] of rows whose answer is known under every expert, and their domains."""

    losses: Matrix
    domains: tuple[str, ...]

    def costs(self, weights: Matrix) -> Floats:
        """[n] expected loss of answering by these weights, nats per token."""
        return np.asarray((weights * self.losses).sum(axis=1), dtype=np.float64)

    def regrets(self, weights: Matrix) -> Floats:
        """[n] costs less the least loss of any expert."""
        return np.asarray(self.costs(weights) - self.losses.min(axis=1), dtype=np.float64)

    def decisive(self, margin: float) -> Flags:
        """[n] whether the best expert is better than the next by more than `margin` nats."""
        ranked = np.sort(self.losses, axis=1)
        return np.asarray(ranked[:, 1] - ranked[:, 0] > margin, dtype=np.bool_)


def one_hot(columns: Indices, experts: int) -> Matrix:
    """Return weights [n, experts] of 1 for each row's column."""
    weights = np.zeros((len(columns), experts))
    weights[np.arange(len(columns)), columns] = 1.0
    return weights


def controls(stakes: Stakes, lead: Matrix, mix: Matrix, generalist: int) -> dict[str, Matrix]:
    """Return the weights of every control of a router with these leads and weights [n, experts].

    `SHUFFLED` hands out the same leads in random order, `SHUFFLED_MIX` the same weights; both are
    the exact mean over all orders, in which every row gets the mean decision. `UNIFORM` draws an
    expert at random, or weighs k random ones alike, which costs the same on average for every k.
    `BEST_SINGLE` always takes the expert with the least macro loss on these very rows.
    """
    rows, experts = stakes.losses.shape
    everyone = np.ones((rows, 1))
    macro = Macro(stakes.domains)
    best = int(np.argmin([macro(stakes.losses[:, column]) for column in range(experts)]))
    return {
        SHUFFLED: everyone * lead.mean(axis=0),
        SHUFFLED_MIX: everyone * mix.mean(axis=0),
        UNIFORM: everyone * np.full(experts, 1.0 / experts),
        BEST_SINGLE: one_hot(np.full(rows, best), experts),
        GENERALIST: one_hot(np.full(rows, generalist), experts),
        ORACLE: one_hot(np.asarray(stakes.losses.argmin(axis=1), dtype=np.int64), experts),
    }


def compare(
    stakes: Stakes,
    routers: Mapping[str, Matrix],
    router: str,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Regret]:
    """Return the regret of every way of routing; `router` names the one that is to be proved.

    `routers` must hold `BEST_SINGLE`.
    """
    macro = Macro(stakes.domains)
    regrets = {name: stakes.regrets(weights) for name, weights in routers.items()}
    ours, best = regrets[router], regrets[BEST_SINGLE]

    def interval(values: Floats) -> Interval:
        return bootstrap(lambda rows: macro(values, rows), stakes.domains, resamples, seed)

    return {
        name: Regret(
            macro=interval(found),
            by_domain=macro.by_stratum(found),
            over_best_single=ratio(macro, found, best, resamples, seed),
            against_router=interval(ours - found),
        )
        for name, found in regrets.items()
    }


def ratio(
    macro: Macro, top: Floats, bottom: Floats, resamples: int = RESAMPLES, seed: int = 0
) -> Interval | None:
    """Return the paired ratio of two macro means [n], or None where the lower one is 0."""
    if macro(bottom) <= 0.0:
        return None

    def statistic(rows: Indices) -> float:
        # A draw of a few rows may have nothing below the line: its ratio is beyond all bounds.
        return macro(top, rows) / max(macro(bottom, rows), _LEAST)

    return bootstrap(statistic, macro.strata, resamples, seed)


def decisive_accuracy(
    stakes: Stakes, lead: Indices, margin: float, strata: Sequence[str], seed: int = 0
) -> tuple[int, Interval] | None:
    """Return (rows, share with the best expert in the lead) where losses differ beyond `margin`.

    None without such a row.
    """
    rows = stakes.decisive(margin)
    if not rows.any():
        return None
    right = (stakes.losses.argmin(axis=1) == lead)[rows].astype(np.float64)
    kept = [name for name, is_kept in zip(strata, rows.tolist(), strict=True) if is_kept]
    return int(rows.sum()), bootstrap(lambda at: float(right[at].mean()), kept, seed=seed)
