"""From calibrated probabilities to the experts that answer, and their weights. Pure functions."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from router.overrides import Overrides, UnknownExpert, check_count, check_share

Number = TypeVar("Number", int, float)


@dataclass(frozen=True)
class Policy:
    """How probabilities become a choice.

    The choice is the smallest set of experts whose probabilities reach `top_p` together, `top_k`
    at most; a member whose share of the set is under `min_weight` is dropped. Where the best
    probability is under `min_confidence`, the generalist answers alone.
    Raises `OverrideError` for values out of range.
    """

    top_k: int = 2
    top_p: float = 0.85
    min_confidence: float = 0.45
    min_weight: float = 0.15

    def __post_init__(self) -> None:
        check_count("top_k", self.top_k)
        check_share("top_p", self.top_p, zero_allowed=False)
        check_share("min_confidence", self.min_confidence)
        check_share("min_weight", self.min_weight)

    def with_overrides(self, overrides: Overrides) -> "Policy":
        """Return the policy with the request's own values where it gave any."""
        return Policy(
            top_k=_given(overrides.top_k, self.top_k),
            top_p=_given(overrides.top_p, self.top_p),
            min_confidence=_given(overrides.min_confidence, self.min_confidence),
            min_weight=self.min_weight,
        )


@dataclass(frozen=True)
class Verdict:
    """The policy's choice: probabilities and weights by name (each sums to 1), and the reason.

    `probabilities` are those that the choice was made from: 0 for experts that were not allowed.
    """

    probabilities: Mapping[str, float]
    weights: Mapping[str, float]
    reason: str
    abstained: bool = False


def project(gate: Mapping[str, float], experts: Sequence[str], generalist: str) -> dict[str, float]:
    """Return the gate's probabilities over the configured experts, the generalist included.

    Labels that no configured expert bears give their mass to the generalist; experts that the
    gate does not know get 0.
    """
    names = dict.fromkeys((*experts, generalist), 0.0)
    for label, probability in gate.items():
        names[label if label in names else generalist] += probability
    return names


def decide(
    probabilities: Mapping[str, float], generalist: str, policy: Policy, overrides: Overrides
) -> Verdict:
    """Return the verdict on probabilities (all experts, summing to 1) under policy and overrides.

    Raises `UnknownExpert` for a name in `overrides` that is not among the probabilities.
    """
    allowed = _allowed(probabilities, overrides)
    if overrides.weights is not None:
        return _forced(probabilities, allowed, overrides.weights)
    policy = policy.with_overrides(overrides)
    prior = restrict(probabilities, allowed, generalist)
    best = max(prior, key=lambda name: prior[name])
    scope = "" if overrides.experts is None else f"among the allowed {_listed(allowed)}: "
    if prior[best] < policy.min_confidence and generalist in allowed:
        reason = (
            f"{scope}the most probable, {best} ({prior[best]:.2f}), is below min_confidence "
            f"{policy.min_confidence:.2f}; the generalist answers"
        )
        return Verdict(prior, {generalist: 1.0}, reason, abstained=True)
    weights = choose(prior, policy)
    return Verdict(prior, weights, scope + _reason(prior, weights, policy))


def restrict(
    probabilities: Mapping[str, float], allowed: Sequence[str], generalist: str
) -> dict[str, float]:
    """Return the probabilities renormalised among the allowed names, 0 for the others.

    Where the allowed hold no probability at all the generalist takes it, if allowed; else they
    share equally.
    """
    mass = math.fsum(probabilities[name] for name in allowed)
    if mass > 0.0:
        return {
            name: probability / mass if name in allowed else 0.0
            for name, probability in probabilities.items()
        }
    heirs = [generalist] if generalist in allowed else allowed
    return {name: 1.0 / len(heirs) if name in heirs else 0.0 for name in probabilities}


def choose(probabilities: Mapping[str, float], policy: Policy) -> dict[str, float]:
    """Return the weights of the chosen experts, heaviest first, summing to 1."""
    ranked = sorted(probabilities, key=lambda name: -probabilities[name])
    chosen: list[str] = []
    for name in ranked[: policy.top_k]:
        if chosen and probabilities[name] == 0.0:
            break
        chosen.append(name)
        if math.fsum(probabilities[kept] for kept in chosen) >= policy.top_p:
            break
    while len(chosen) > 1:
        mass = math.fsum(probabilities[kept] for kept in chosen)
        if probabilities[chosen[-1]] / mass >= policy.min_weight:
            break
        chosen.pop()
    return normalise({name: probabilities[name] for name in chosen})


def normalise(weights: Mapping[str, float]) -> dict[str, float]:
    """Return the positive weights scaled to the sum 1, heaviest first; ties keep their order."""
    # Dividing by the largest first keeps huge weights from overflowing in the sum.
    largest = max(weights.values())
    scaled = {name: weight / largest for name, weight in weights.items() if weight > 0.0}
    total = math.fsum(scaled.values())
    ranked = sorted(scaled, key=lambda name: -scaled[name])
    return {name: scaled[name] / total for name in ranked if scaled[name] > 0.0}


def _allowed(probabilities: Mapping[str, float], overrides: Overrides) -> list[str]:
    if overrides.experts is None:
        return list(probabilities)
    _known("experts", overrides.experts, probabilities)
    return [name for name in probabilities if name in overrides.experts]


def _forced(
    probabilities: Mapping[str, float], allowed: Sequence[str], forced: Mapping[str, float]
) -> Verdict:
    for name in forced:
        _known(f"weights.{name}", [name], allowed)
    weights = normalise(forced)
    listed = ", ".join(f"{name} {weight:.2f}" for name, weight in weights.items())
    return Verdict(dict(probabilities), weights, f"the caller set the weights: {listed}")


def _known(param: str, names: Iterable[str], known: Iterable[str]) -> None:
    choices = list(known)
    for name in names:
        if name not in choices:
            raise UnknownExpert(param, f"no expert {name!r} here; there are {_listed(choices)}.")


def _reason(
    probabilities: Mapping[str, float], weights: Mapping[str, float], policy: Policy
) -> str:
    names = list(weights)
    mass = math.fsum(probabilities[name] for name in names)
    if len(names) == 1:
        head = f"{names[0]} holds {mass:.2f}"
    else:
        lead = probabilities[names[0]]
        head = f"{_listed(names)} together hold {mass:.2f}, {names[0]} alone {lead:.2f}"
    if mass >= policy.top_p:
        return f"{head}; top_p is {policy.top_p:.2f}"
    if len(names) == policy.top_k:
        return f"{head}; top_k {policy.top_k} allows no more"
    return f"{head}; no other holds a share of {policy.min_weight:.2f}"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _given(value: Number | None, default: Number) -> Number:
    return default if value is None else value
