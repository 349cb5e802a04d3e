"""Whether the promise of a confidence threshold is kept on rows that did not set it.

The promise: of the requests that are routed (an expert, not the generalist, leads with at least the
threshold's confidence), at most a share alpha has a regret above epsilon. A threshold is set on one
random half of the rows and tried on the other, many times over.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from router.trials import Flags, Floats, Indices

Threshold = Callable[[Floats, Floats, float, float], float]
"""(confidences [n], regrets [n] in nats, alpha, epsilon) -> the least confidence to route at."""

ALPHAS = (0.05, 0.1, 0.2)
EPSILON = 0.05
RESPLITS = 200


@dataclass(frozen=True)
class Promise:
    """How the promise at one `alpha` fared over `resplits` random halves.

    `kept`: the share of resplits in which at most a share alpha of the routed rows had a regret
    above epsilon. `routed`, `routed_in_domain`: mean share of the tried rows, and of those in an
    expert's domain, that were routed. `violations`: mean share of routed rows with such a regret.
    """

    alpha: float
    epsilon: float
    resplits: int
    kept: float
    routed: float
    routed_in_domain: float
    violations: float


@dataclass(frozen=True)
class _Try:
    kept: bool
    routed: float
    routed_in_domain: float
    violations: float


def try_promises(
    confidences: Floats,
    regrets: Floats,
    in_domain: Flags,
    led: Flags,
    threshold: Threshold,
    alphas: Sequence[float] = ALPHAS,
    epsilon: float = EPSILON,
    resplits: int = RESPLITS,
    seed: int = 0,
) -> tuple[Promise, ...]:
    """Return how the promise at every alpha fared; all alphas see the same resplits.

    `led` [n]: an expert leads, not the generalist.
    """
    halves = _halves(len(confidences), resplits, seed)
    promises = []
    for alpha in alphas:
        tries = []
        for setting, trying in halves:
            told = setting[led[setting]]
            least = np.inf
            if told.size:
                least = threshold(confidences[told], regrets[told], alpha, epsilon)
            accepted = (confidences[trying] >= least) & led[trying]
            bad = regrets[trying] > epsilon
            tries.append(_attempt(accepted, bad, in_domain[trying], alpha))
        promises.append(_summary(tries, alpha, epsilon))
    return tuple(promises)


def _halves(rows: int, resplits: int, seed: int) -> list[tuple[Indices, Indices]]:
    dice = np.random.default_rng(seed)
    orders = [dice.permutation(rows) for _ in range(resplits)]
    return [(order[: rows // 2], order[rows // 2 :]) for order in orders]


def _attempt(accepted: Flags, bad: Flags, in_domain: Flags, alpha: float) -> _Try:
    violations = float(bad[accepted].mean()) if accepted.any() else 0.0
    inside = float(accepted[in_domain].mean()) if in_domain.any() else 0.0
    return _Try(violations <= alpha, float(accepted.mean()), inside, violations)


def _summary(tries: Sequence[_Try], alpha: float, epsilon: float) -> Promise:
    return Promise(
        alpha=alpha,
        epsilon=epsilon,
        resplits=len(tries),
        kept=float(np.mean([one.kept for one in tries])),
        routed=float(np.mean([one.routed for one in tries])),
        routed_in_domain=float(np.mean([one.routed_in_domain for one in tries])),
        violations=float(np.mean([one.violations for one in tries])),
    )
