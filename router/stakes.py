"""The part of a proof that needs the experts' losses: regret, controls, and the promise."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from router.calibration import Matrix
from router.controls import (
    BEST_SINGLE,
    Stakes,
    compare,
    controls,
    decisive_accuracy,
    one_hot,
    ratio,
)
from router.intervals import Macro
from router.losses import LossTable
from router.novelty import outside
from router.promise import Threshold, try_promises
from router.scores import risk_curve
from router.trials import Floats, Indices, Trials

ROUTER, ROUTER_MIX, BY_LABEL = "router", "router mix", "by label"


def known(trials: Trials, losses: LossTable) -> tuple[Indices, Matrix]:
    """Return the trials whose answer's losses are known [n], and those losses [n, experts].

    Raises `LossError` where the table lacks an expert of the router.
    """
    matrix = losses.matrix([row.text for row in trials.rows], trials.experts)
    rows = np.flatnonzero(np.isfinite(matrix).all(axis=1))
    return rows, matrix[rows]


def measure_regret(
    trials: Trials,
    alone: Trials,
    losses: LossTable | None,
    peers: Mapping[str, Sequence[str]],
    threshold: Threshold | None,
    epsilon: float,
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    """Return the sections `regret` and `promise`; None where there is nothing to measure on.

    `alone` are trials of the same rows in which the gate decided all: risk over coverage and the
    promise are about its confidence. `peers` are the names of the experts that others chose for
    each of the trials.
    """
    if losses is None:
        return {"regret": None, "promise": None}
    rows, matrix = known(trials, losses)
    if not len(rows):
        return {"regret": None, "promise": None}
    leads = {name: _columns(trials, names)[rows] for name, names in peers.items()}
    trials, alone = trials.at(rows), alone.at(rows)
    stakes = Stakes(matrix, trials.domains)
    routers = _routers(trials, stakes, leads)
    regrets = compare(stakes, routers, ROUTER, resamples, seed)
    # Whatever a threshold lets through goes to the most probable expert.
    routed = stakes.regrets(one_hot(alone.likeliest, len(trials.experts)))
    return {
        "regret": {
            "rows": len(trials.rows),
            "epsilon": epsilon,
            "routers": regrets,
            "best_single": trials.experts[int(routers[BEST_SINGLE][0].argmax())],
            "over_best_single": regrets[ROUTER].over_best_single,
            "over_peers": _over_peers(stakes, routers, list(leads), resamples, seed),
            # Better than this one beyond chance: the whole interval of the difference is below 0.
            "beats": {
                name: found.against_router.high < 0.0
                for name, found in regrets.items()
                if name != ROUTER
            },
            "decisive": _decisive(stakes, trials.lead, epsilon, seed),
            "above_epsilon": float((stakes.regrets(routers[ROUTER]) > epsilon).mean()),
            "risk_coverage": risk_curve(alone.confidence, routed > epsilon),
        },
        "promise": _promise(alone, routed, threshold, epsilon, seed),
    }


def _columns(trials: Trials, names: Sequence[str]) -> Indices:
    # What is no expert here is left to the generalist, as the router does with labels.
    generalist = trials.experts.index(trials.generalist)
    places = {name: place for place, name in enumerate(trials.experts)}
    return np.array([places.get(name, generalist) for name in names], dtype=np.int64)


def _routers(trials: Trials, stakes: Stakes, leads: Mapping[str, Indices]) -> dict[str, Matrix]:
    experts = len(trials.experts)
    lead = one_hot(trials.lead, experts)
    generalist = trials.experts.index(trials.generalist)
    return {
        ROUTER: lead,
        ROUTER_MIX: trials.weights,
        **controls(stakes, lead, trials.weights, generalist),
        BY_LABEL: trials.targets,
        **{name: one_hot(columns, experts) for name, columns in leads.items()},
    }


def _over_peers(
    stakes: Stakes, routers: Mapping[str, Matrix], peers: Sequence[str], resamples: int, seed: int
) -> dict[str, Any]:
    macro, ours = Macro(stakes.domains), stakes.regrets(routers[ROUTER])
    return {
        name: ratio(macro, ours, stakes.regrets(routers[name]), resamples, seed) for name in peers
    }


def _decisive(stakes: Stakes, lead: Indices, margin: float, seed: int) -> dict[str, Any] | None:
    found = decisive_accuracy(stakes, lead, margin, stakes.domains, seed)
    return None if found is None else {"rows": found[0], "margin": margin, "accuracy": found[1]}


def _promise(
    trials: Trials, regrets: Floats, threshold: Threshold | None, epsilon: float, seed: int
) -> dict[str, Any] | None:
    if threshold is None:
        return None
    inside = ~outside(trials.rows, trials.generalist)
    led = trials.likeliest != trials.experts.index(trials.generalist)
    if not led.any():
        return None
    given = trials.confidence, regrets, inside, led, threshold
    tries = try_promises(*given, epsilon=epsilon, seed=seed)
    return {"epsilon": epsilon, "tries": tries}
