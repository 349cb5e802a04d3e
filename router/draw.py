"""How the experts of a decision came to act: by policy or by chance, and how likely that was."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Draw:
    """What a log must know to learn from a decision.

    `rate` is the share of exploration in force for the request, 0 where it was not allowed.
    `policy` are the experts that the policy chose, `explored` tells whether chance chose instead.
    `propensity` is the probability, over that chance alone, that just the experts act that did.
    """

    rate: float
    policy: tuple[str, ...]
    explored: bool = False
    propensity: float = 1.0


def propensity(
    action: Iterable[str], policy: Iterable[str], probabilities: Mapping[str, float], rate: float
) -> float:
    """Return the probability that just the experts of `action` act.

    With probability 1 − `rate` the choice of the `policy` acts; else one expert, by the
    `probabilities`, which sum to 1. A set of several experts can come from the policy alone.
    """
    wanted = frozenset(action)
    by_policy = 1.0 - rate if wanted == frozenset(policy) else 0.0
    if rate == 0.0 or len(wanted) != 1:
        return by_policy
    (name,) = wanted
    return by_policy + rate * probabilities.get(name, 0.0)
