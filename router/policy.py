"""From calibrated probabilities to the experts that answer, and their weights. Pure functions."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from heapq import nlargest
from typing import TypeVar

from router import wording
from router.limits import Limits
from router.overrides import Overrides, check_count, check_known, check_share, listed
from router.situation import CALM, Situation

Number = TypeVar("Number", int, float)

NO_LIMITS = Limits()


@dataclass(frozen=True)
class Policy:
    """How probabilities become a choice.

    The choice is the smallest set of experts whose probabilities reach `top_p` together, `top_k`
    at most; a member whose share of the set is under `min_weight` is dropped. Where the best
    probability is under `min_confidence`, the generalist answers alone. `max_risk` names the
    promise that `min_confidence` was set for (`conformal.py`), for the reason; None if for none.
    Raises `OverrideError` for values out of range.
    """

    top_k: int = 2
    top_p: float = 0.85
    min_confidence: float = 0.45
    min_weight: float = 0.15
    max_risk: float | None = None

    def __post_init__(self) -> None:
        check_count("top_k", self.top_k)
        check_share("top_p", self.top_p, zero_allowed=False)
        check_share("min_confidence", self.min_confidence)
        check_share("min_weight", self.min_weight)
        if self.max_risk is not None:
            check_share("max_risk", self.max_risk, zero_allowed=False)

    def with_overrides(self, overrides: Overrides) -> "Policy":
        """Return the policy with the request's own values where it gave any."""
        return Policy(
            top_k=_given(overrides.top_k, self.top_k),
            top_p=_given(overrides.top_p, self.top_p),
            min_confidence=_given(overrides.min_confidence, self.min_confidence),
            min_weight=self.min_weight,
            max_risk=self.max_risk if overrides.min_confidence is None else None,
        )


@dataclass(frozen=True)
class Verdict:
    """The policy's choice: probabilities and weights by name (each sums to 1), and the reason.

    `probabilities` are those that the choice was made from: 0 for experts that were not allowed.
    Limits of cost and time, and balancing, change the weights and not them.
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
    probabilities: Mapping[str, float],
    generalist: str,
    policy: Policy,
    overrides: Overrides,
    situation: Situation = CALM,
) -> Verdict:
    """Return the verdict on probabilities (all experts, summing to 1) in a situation.

    Raises `UnknownExpert` for a name in `overrides` that is not among the probabilities, and
    `OverrideError` where `max_cost` allows none of the experts.
    """
    allowed = _allowed(probabilities, overrides)
    limits = Limits.of(overrides, situation)
    if overrides.weights is not None:
        return _forced(probabilities, allowed, overrides.weights, limits)
    prior = restrict(probabilities, allowed, generalist)
    able = limits.affordable(allowed)
    choice = _Choice(prior, generalist, policy.with_overrides(overrides), limits, situation.biases)
    verdict = _in_time(choice, able)
    scope = [] if overrides.experts is None else [f"among the allowed {listed(allowed)}"]
    dear = wording.dear(prior, allowed, limits, policy.min_weight)
    reason = ": ".join([*scope, verdict.reason])
    return replace(verdict, reason="; ".join(note for note in (reason, dear) if note))


def restrict(
    probabilities: Mapping[str, float], allowed: Sequence[str], generalist: str
) -> dict[str, float]:
    """Return the probabilities renormalised among the allowed names, 0 for the others.

    Where the allowed hold no probability at all the generalist takes it, if allowed; else they
    share equally.
    """
    members = frozenset(allowed)
    mass = math.fsum(probabilities[name] for name in allowed)
    if mass > 0.0:
        return {
            name: probability / mass if name in members else 0.0
            for name, probability in probabilities.items()
        }
    heirs = frozenset([generalist]) if generalist in members else members
    return {name: 1.0 / len(heirs) if name in heirs else 0.0 for name in probabilities}


def choose(
    probabilities: Mapping[str, float],
    policy: Policy,
    limits: Limits = NO_LIMITS,
    biases: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """Return the weights of the chosen experts, heaviest first, summing to 1.

    `probabilities` must hold one above 0. `biases` are added for the order in which experts are
    taken, and for nothing else. The set ends before an expert that `limits` cannot pay as well.
    """
    added = biases or {}
    able = [name for name, probability in probabilities.items() if probability > 0.0]
    ranked = nlargest(
        policy.top_k, able, key=lambda name: probabilities[name] + added.get(name, 0.0)
    )
    chosen: list[str] = []
    for name in ranked:
        if chosen and not limits.fits([*chosen, name]):
            break
        chosen.append(name)
        if math.fsum(probabilities[kept] for kept in chosen) >= policy.top_p:
            break
    chosen.sort(key=lambda name: -probabilities[name])
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


@dataclass(frozen=True)
class _Choice:
    """One request's choice, made again where the first is too slow."""

    prior: Mapping[str, float]
    generalist: str
    policy: Policy
    limits: Limits
    biases: Mapping[str, float]

    def among(self, able: Sequence[str]) -> Verdict:
        # Against the prior over all that are allowed: what remains is not surer for remaining.
        best = max(able, key=lambda name: self.prior[name])
        if self.prior[best] < self.policy.min_confidence and self.generalist in able:
            reason = wording.abstention(best, self.prior[best], self.policy)
            return Verdict(self.prior, {self.generalist: 1.0}, reason, abstained=True)
        if self.prior[best] == 0.0:
            cheapest = min(able, key=lambda name: self.limits.cost([name]))
            heir = self.generalist if self.generalist in able else cheapest
            return Verdict(self.prior, {heir: 1.0}, f"no probable expert is left; {heir} answers")
        within = {name: self.prior[name] for name in able}
        weights = choose(within, self.policy, self.limits, self.biases)
        reason = wording.chosen(within, weights, self.policy, self.limits)
        if self.biases:
            unbiased = choose(within, self.policy, self.limits)
            reason += wording.balanced(list(unbiased), list(weights))
        return Verdict(self.prior, weights, reason)


def _in_time(choice: _Choice, able: Sequence[str]) -> Verdict:
    """The choice; where a queue would outlast the deadline, fewer experts, then others."""
    verdict = choice.among(able)
    late = [name for name in verdict.weights if choice.limits.is_late(name)]
    if not late:
        return verdict
    on_time = [name for name in able if not choice.limits.is_late(name)]
    if on_time:
        fewer = max(1, len(verdict.weights) - len(late))
        hurried = replace(choice, policy=replace(choice.policy, top_k=fewer))
        verdict = hurried.among(on_time)
    else:
        lead = next(iter(verdict.weights))
        verdict = replace(verdict, weights={lead: 1.0})
    note = wording.late(late, choice.limits, bool(on_time))
    return replace(verdict, reason=f"{verdict.reason}; {note}")


def _allowed(probabilities: Mapping[str, float], overrides: Overrides) -> list[str]:
    if overrides.experts is None:
        return list(probabilities)
    check_known("experts", overrides.experts, probabilities)
    members = frozenset(overrides.experts)
    return [name for name in probabilities if name in members]


def _forced(
    probabilities: Mapping[str, float],
    allowed: Sequence[str],
    forced: Mapping[str, float],
    limits: Limits,
) -> Verdict:
    for name in forced:
        check_known(f"weights.{name}", [name], allowed)
    weights = normalise(forced)
    limits.check(list(weights))
    named = ", ".join(f"{name} {weight:.2f}" for name, weight in weights.items())
    return Verdict(dict(probabilities), weights, f"the caller set the weights: {named}")


def _given(value: Number | None, default: Number) -> Number:
    return default if value is None else value
