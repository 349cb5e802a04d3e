"""Abstention that keeps a promise: how sure the gate must be for large regret to be rare.

A row is bad where its regret (loss of the most probable expert less the least loss of all, nats
per token) is above epsilon. A threshold accepts the rows of at least its confidence (largest
probability); the generalist answers the others. Promised is a share of bad rows among the
accepted of at most alpha, with probability 1 - delta over the rows that the threshold was set on.

`safe_threshold` walks from the most confident rows down and stops at the first region that does
not pass its test: fixed-sequence testing, which needs no correction for the many regions looked
at, because to accept a region that breaks the promise, the first such one must pass by chance
(https://arxiv.org/abs/2110.01052). The regions to look at are fixed by ranks of confidence, before
any regret is seen.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from router.gate import GateError

Array = npt.NDArray[np.float64]

ALPHAS = (0.05, 0.1, 0.2)
EPSILON = 0.05
DELTA = 0.03
"""Below the 1 in 20 that is asked for, because a count over some hundred resplits scatters."""

METADATA_KEY = "conformal"

_STEPS = 100
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Curve:
    """The choice between answering much and erring little, from the surest row down.

    At `threshold[i]` the share `coverage[i]` of all rows is accepted; of these `risk[i]` is bad.
    """

    threshold: Array
    coverage: Array
    risk: Array


def risk_coverage(
    confidences: Sequence[float] | Array, regrets: Sequence[float] | Array, epsilon: float = EPSILON
) -> Curve:
    """Return risk and coverage at each confidence that occurs, the largest first.

    Raises `ValueError` for arrays that do not fit together, or hold NaN.
    """
    sure, bad = _sorted(confidences, regrets, epsilon)
    ranks = _closed(sure, np.arange(1, len(sure) + 1))
    return Curve(sure[ranks - 1], ranks / len(sure), bad[ranks] / ranks)


def safe_threshold(
    confidences: Sequence[float] | Array,
    regrets: Sequence[float] | Array,
    *,
    alpha: float,
    epsilon: float = EPSILON,
    delta: float = DELTA,
    fresh: int | None = None,
) -> float | None:
    """Return the least confidence whose accepted rows keep the promise; None where none does.

    Without `fresh` the promise is about the probability of a bad row (the upper bound of Clopper
    and Pearson is at most alpha). With it, about the share that is counted among as many new rows,
    which scatters as well: a larger threshold, by the hypergeometric distribution.
    Raises `ValueError` for arrays that do not fit together or hold NaN, and for a wrong alpha.
    """
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"alpha must lie between 0 and 1; got {alpha!r}.")
    sure, bad = _sorted(confidences, regrets, epsilon)
    count = len(sure)
    logs = _log_factorials(2 * count + (fresh or 0))

    def passes(wrong: int, rank: int) -> bool:
        if fresh is None:
            chance = _binomial(wrong, rank, alpha, logs)
        else:
            new = round(rank * fresh / count)
            # The least number of new bad rows that breaks the promise.
            breaking = math.floor(alpha * new + _ROUNDING) + 1
            chance = _hypergeometric(wrong, rank, new, wrong + breaking, logs) if new else 1.0
        return chance <= delta

    grid = np.unique(np.ceil(np.linspace(0.0, count, _STEPS + 1)[1:]).astype(np.int64))
    # Where half the risk allowed would not pass, a region is too small to tell, whatever it holds.
    tellable = [
        rank for rank in grid.tolist() if passes(math.ceil(alpha * rank / 2 - _ROUNDING), rank)
    ]
    accepted = 0
    for rank in _closed(sure, np.asarray(tellable, dtype=np.int64)).tolist():
        if not passes(int(bad[rank]), rank):
            break
        accepted = rank
    return _above(sure, accepted)


def marginal_threshold(
    confidences: Sequence[float] | Array,
    regrets: Sequence[float] | Array,
    *,
    alpha: float,
    epsilon: float = EPSILON,
) -> float | None:
    """Return the split-conformal threshold: P(accepted and bad) <= alpha for one new row.

    It holds on average over the rows that it was set on and over all rows, accepted or not
    (conformal risk control, https://arxiv.org/abs/2208.02814); of single sets of accepted rows
    about half break alpha. None where no row may be accepted.
    Raises `ValueError` for arrays that do not fit together, or hold NaN.
    """
    sure, bad = _sorted(confidences, regrets, epsilon)
    ranks = _closed(sure, np.arange(1, len(sure) + 1))
    kept = ranks[(bad[ranks] + 1) / (len(sure) + 1) <= alpha]
    return _above(sure, int(kept.max(initial=0)))


def upper_bound(bad: int, total: int, delta: float = DELTA) -> float:
    """Return the Clopper-Pearson bound: the largest probability that `bad` of `total` leaves open.

    That is p with P(Binomial(total, p) <= bad) = delta; 1 where all are bad.
    """
    if bad >= total:
        return 1.0
    logs = _log_factorials(total)
    low, high = bad / total, 1.0
    while high - low > 1e-12:
        middle = (low + high) / 2.0
        if _binomial(bad, total, middle, logs) > delta:
            low = middle
        else:
            high = middle
    return high


def promises(
    confidences: Sequence[float] | Array,
    regrets: Sequence[float] | Array,
    *,
    alphas: Sequence[float] = ALPHAS,
    epsilon: float = EPSILON,
    delta: float = DELTA,
) -> dict[str, Any]:
    """Return what a gate's metadata keeps under `METADATA_KEY`: a threshold for each alpha.

    They are for as many new rows as there are here (`fresh`); null where none keeps the promise.
    Raises `ValueError` for arrays that do not fit together, or hold NaN.
    """
    found = {
        f"{alpha:g}": safe_threshold(
            confidences,
            regrets,
            alpha=alpha,
            epsilon=epsilon,
            delta=delta,
            fresh=len(confidences),
        )
        for alpha in alphas
    }
    return {"epsilon": epsilon, "delta": delta, "rows": len(confidences), "thresholds": found}


def promised_confidence(metadata: Mapping[str, Any], max_risk: float) -> float:
    """Return the threshold that a gate's metadata keeps for a share of bad rows.

    Raises `GateError` where there is none for it; the message says what there is.
    """
    found = metadata.get(METADATA_KEY)
    thresholds = found.get("thresholds") if isinstance(found, Mapping) else None
    if not (isinstance(found, Mapping) and isinstance(thresholds, Mapping) and thresholds):
        raise GateError(
            f"max_risk {max_risk:g}: this gate holds no promises of risk. Train it on rows whose "
            "losses are known, or set min_confidence instead."
        )
    kept = [key for key, value in thresholds.items() if isinstance(value, int | float)]
    value = thresholds.get(f"{max_risk:g}")
    if isinstance(value, int | float):
        return float(value)
    if kept:
        offered = ", ".join(kept)
        raise GateError(
            f"max_risk {max_risk:g}: this gate promises {offered}. Set max_risk to one of these, "
            "or set min_confidence instead."
        )
    raise GateError(
        f"max_risk {max_risk:g}: this gate can promise nothing: on the {found.get('rows', 0)} rows "
        "that were kept apart with known losses, too many of its choices cost too much, however "
        "sure it was. Remove max_risk and set min_confidence, or train another gate with more rows "
        "in the table of `collegium train router --losses`, or experts that lose less."
    )


def _sorted(
    confidences: Sequence[float] | Array, regrets: Sequence[float] | Array, epsilon: float
) -> tuple[Array, npt.NDArray[np.int64]]:
    """Confidences, the largest first, and the number of bad rows among the first 0, 1, ... n."""
    sure = np.asarray(confidences, dtype=np.float64)
    regret = np.asarray(regrets, dtype=np.float64)
    if sure.ndim != 1 or sure.shape != regret.shape or not len(sure):
        raise ValueError(
            f"confidences {sure.shape} and regrets {regret.shape} must be equally long, not empty."
        )
    if np.isnan(sure).any() or np.isnan(regret).any():
        raise ValueError("confidences and regrets must not hold NaN: leave unknown rows out.")
    order = np.argsort(-sure, kind="stable")
    counted = np.concatenate([[0], np.cumsum(regret[order] > epsilon)])
    return sure[order], counted.astype(np.int64)


def _closed(sure: Array, ranks: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The ranks, each moved down to the last row of equal confidence: ties stay together."""
    return np.unique(np.searchsorted(-sure, -sure[ranks - 1], side="right"))


def _above(sure: Array, accepted: int) -> float | None:
    """The least number that accepts so many rows, just above the next one's confidence."""
    if accepted == 0:
        return None
    return float(np.nextafter(sure[accepted], 1.0)) if accepted < len(sure) else 0.0


def _log_factorials(most: int) -> Array:
    return np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, most + 1)))])


def _binomial(bad: int, total: int, share: float, logs: Array) -> float:
    """P(Binomial(total, share) <= bad)."""
    if share >= 1.0:
        return float(bad >= total)
    found = np.arange(bad + 1)
    ways = logs[total] - logs[found] - logs[total - found]
    chances = np.exp(ways + found * math.log(share) + (total - found) * math.log1p(-share))
    return min(1.0, float(chances.sum()))


def _hypergeometric(bad: int, seen: int, new: int, all_bad: int, logs: Array) -> float:
    """P(at most `bad` of `all_bad` bad rows are among those `seen`, not among the `new`)."""
    found = np.arange(max(0, all_bad - new), bad + 1)
    total = seen + new
    ways = logs[all_bad] - logs[found] - logs[all_bad - found]
    good = total - all_bad
    ways += logs[good] - logs[seen - found] - logs[good - seen + found]
    chances = np.exp(ways - (logs[total] - logs[seen] - logs[total - seen]))
    return min(1.0, float(chances.sum()))
