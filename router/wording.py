"""The reasons of a choice, in words."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from router.limits import Limits, dollars
from router.overrides import listed

if TYPE_CHECKING:
    from router.policy import Policy


def chosen(
    probabilities: Mapping[str, float],
    weights: Mapping[str, float],
    policy: Policy,
    limits: Limits,
) -> str:
    """Say what the chosen hold, and why there are no more."""
    names = list(weights)
    mass = math.fsum(probabilities[name] for name in names)
    if len(names) == 1:
        head = f"{names[0]} holds {mass:.2f}"
    else:
        lead = probabilities[names[0]]
        head = f"{listed(names)} together hold {mass:.2f}, {names[0]} alone {lead:.2f}"
    if mass >= policy.top_p:
        return f"{head}; top_p is {policy.top_p:.2f}"
    if len(names) == policy.top_k:
        return f"{head}; top_k {policy.top_k} allows no more"
    if limits.max_cost is not None:
        others = [name for name, p in probabilities.items() if p > 0.0 and name not in weights]
        following = max(others, key=lambda name: probabilities[name], default=None)
        if following is not None and not limits.fits([*names, following]):
            return f"{head}; max_cost {dollars(limits.max_cost)} allows no more"
    return f"{head}; no other holds a share of {policy.min_weight:.2f}"


def abstention(best: str, probability: float, policy: Policy) -> str:
    """Say why the generalist answers."""
    head = f"the most probable, {best} ({probability:.2f}), is below"
    asked = f"min_confidence {policy.min_confidence:.2f}"
    if policy.max_risk is not None:
        asked = (
            f"{policy.min_confidence:.2f}, the confidence that max_risk {policy.max_risk:g} asks"
        )
    return f"{head} {asked}; the generalist answers"


def balanced(unbiased: Sequence[str], biased: Sequence[str]) -> str:
    """Say that load changed the choice; nothing where it did not."""
    if set(unbiased) == set(biased):
        return ""
    return f"; load moved the choice from {listed(unbiased)} to {listed(biased)}"


def dear(
    probabilities: Mapping[str, float], allowed: Sequence[str], limits: Limits, least: float
) -> str:
    """Name the experts that hold `least` or more and cost too much; nothing without any."""
    if limits.max_cost is None:
        return ""
    found = [
        f"{name} ({probabilities[name]:.2f}) is estimated at {dollars(limits.cost([name]))}"
        for name in allowed
        if probabilities[name] >= least and not limits.fits([name])
    ]
    if not found:
        return ""
    return f"{listed(found)}, over max_cost {dollars(limits.max_cost or 0.0)}"


def disabled(probabilities: Mapping[str, float], names: Collection[str], least: float) -> str:
    """Name the disabled experts to which `least` or more was given; nothing without any."""
    missed = [name for name in names if probabilities.get(name, 0.0) >= least]
    if not missed:
        return ""
    told = listed([f"{name} ({probabilities[name]:.2f})" for name in missed])
    return f"{told}, disabled in this service, left it to the others"


def late(names: Sequence[str], limits: Limits, avoided: bool) -> str:
    """Name the queues that outlast the deadline, and what was done about it."""
    queues = listed([f"{name} {limits.waits.get(name, 0.0):.1f} s" for name in names])
    left = f"longer than the {max(0.0, limits.seconds_left or 0.0):.1f} s left"
    done = "others answer" if avoided else "no queue is shorter, one expert alone is asked"
    return f"queue {queues}, {left}: {done}"
