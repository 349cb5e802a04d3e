"""From calibrated probabilities to the experts that answer, and their weights. Pure functions."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from router import wording
from router.chances import Array, Chances, Places, largest
from router.limits import Limits
from router.overrides import (
    OverrideError,
    Overrides,
    check_count,
    check_known,
    check_share,
    listed,
)
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
    disabled: Collection[str] = (),
) -> Verdict:
    """Return the verdict on probabilities (all experts, summing to 1) in a situation.

    No expert of `disabled` is allowed, whatever the overrides say. Raises `UnknownExpert` for a
    name in `overrides` that is not among the probabilities, and `OverrideError` where `max_cost`
    or `disabled` allow none of the experts.
    """
    chances = Chances.of(probabilities)
    allowed = _allowed(chances, overrides, disabled)
    limits = Limits.of(overrides, situation)
    if overrides.weights is not None:
        return _forced(chances, chances.names(allowed), overrides.weights, limits)
    prior = _restricted(chances, allowed, generalist)
    able = allowed
    if limits.max_cost is not None:
        able = chances.roster.at(limits.affordable(chances.names(allowed)))
    choice = _Choice(prior, generalist, policy.with_overrides(overrides), limits, situation.biases)
    verdict = _in_time(choice, able)
    notes = [verdict.reason, wording.disabled(chances, disabled, policy.min_weight)]
    if overrides.experts is not None:
        notes = [f"among the allowed {listed(chances.names(allowed))}: {verdict.reason}"]
    if limits.max_cost is not None:
        notes.append(wording.dear(prior, chances.names(allowed), limits, policy.min_weight))
    return replace(verdict, reason="; ".join(note for note in notes if note))


def restrict(
    probabilities: Mapping[str, float], allowed: Sequence[str], generalist: str
) -> Mapping[str, float]:
    """Return the probabilities renormalised among the allowed names, 0 for the others.

    Where the allowed hold no probability at all the generalist takes it, if allowed; else they
    share equally.
    """
    chances = Chances.of(probabilities)
    return _restricted(chances, chances.roster.at(allowed), generalist)


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
    chances = Chances.of(probabilities)
    able = np.flatnonzero(chances.array > 0.0)
    ranks = _biased(chances, biases or {})[able]
    chosen: list[str] = []
    for name in chances.names(able[largest(ranks, policy.top_k)]):
        if chosen and not limits.fits([*chosen, name]):
            break
        chosen.append(name)
        if math.fsum(chances[kept] for kept in chosen) >= policy.top_p:
            break
    chosen.sort(key=lambda name: -chances[name])
    while len(chosen) > 1:
        mass = math.fsum(chances[kept] for kept in chosen)
        if chances[chosen[-1]] / mass >= policy.min_weight:
            break
        chosen.pop()
    return normalise({name: chances[name] for name in chosen})


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

    prior: Chances
    generalist: str
    policy: Policy
    limits: Limits
    biases: Mapping[str, float]

    def among(self, able: Places) -> Verdict:
        # Against the prior over all that are allowed: what remains is not surer for remaining.
        roster, prior = self.prior.roster, self.prior.array
        place = int(able[prior[able].argmax()])
        best, most = roster.names[place], float(prior[place])
        may_abstain = bool((able == roster.places.get(self.generalist, -1)).any())
        if most < self.policy.min_confidence and may_abstain:
            reason = wording.abstention(best, most, self.policy)
            return Verdict(self.prior, {self.generalist: 1.0}, reason, abstained=True)
        if most == 0.0:
            names = self.prior.names(able)
            cheapest = min(names, key=lambda name: self.limits.cost([name]))
            heir = self.generalist if may_abstain else cheapest
            return Verdict(self.prior, {heir: 1.0}, f"no probable expert is left; {heir} answers")
        within = self.prior.only(able)
        weights = choose(within, self.policy, self.limits, self.biases)
        reason = wording.chosen(within, weights, self.policy, self.limits)
        if self.biases:
            unbiased = choose(within, self.policy, self.limits)
            reason += wording.balanced(list(unbiased), list(weights))
        return Verdict(self.prior, weights, reason)


def _in_time(choice: _Choice, able: Places) -> Verdict:
    """The choice; where a queue would outlast the deadline, fewer experts, then others."""
    verdict = choice.among(able)
    late = [name for name in verdict.weights if choice.limits.is_late(name)]
    if not late:
        return verdict
    names = choice.prior.names(able)
    on_time = [name for name in names if not choice.limits.is_late(name)]
    if on_time:
        fewer = max(1, len(verdict.weights) - len(late))
        hurried = replace(choice, policy=replace(choice.policy, top_k=fewer))
        verdict = hurried.among(choice.prior.roster.at(on_time))
    else:
        lead = next(iter(verdict.weights))
        verdict = replace(verdict, weights={lead: 1.0})
    note = wording.late(late, choice.limits, bool(on_time))
    return replace(verdict, reason=f"{verdict.reason}; {note}")


def _allowed(chances: Chances, overrides: Overrides, disabled: Collection[str]) -> Places:
    roster = chances.roster
    if overrides.experts is None:
        closed = [roster.places[name] for name in disabled if name in roster.places]
        return np.delete(roster.everyone, closed) if closed else roster.everyone
    check_known("experts", overrides.experts, roster.names)
    members = frozenset(overrides.experts)
    names = [name for name in roster.names if name in members and name not in disabled]
    if not names:
        raise OverrideError("experts", f"{listed(sorted(members))}: disabled in this service.")
    return roster.at(names)


def _restricted(chances: Chances, allowed: Places, generalist: str) -> Chances:
    roster, kept = chances.roster, chances.only(allowed).array
    mass = float(kept.sum())
    if mass > 0.0:
        return Chances(roster, kept / mass)
    heir = allowed[allowed == roster.places.get(generalist, -1)]
    heirs = heir if len(heir) else allowed
    shared = np.zeros_like(kept)
    shared[heirs] = 1.0 / len(heirs)
    return Chances(roster, shared)


def _biased(chances: Chances, biases: Mapping[str, float]) -> Array:
    if not biases:
        return chances.array
    ranks, places = chances.array.copy(), chances.roster.places
    for name, bias in biases.items():
        if name in places:
            ranks[places[name]] += bias
    return ranks


def _forced(
    chances: Chances, allowed: Sequence[str], forced: Mapping[str, float], limits: Limits
) -> Verdict:
    for name in forced:
        check_known(f"weights.{name}", [name], allowed)
    weights = normalise(forced)
    limits.check(list(weights))
    named = ", ".join(f"{name} {weight:.2f}" for name, weight in weights.items())
    return Verdict(chances, weights, f"the caller set the weights: {named}")


def _given(value: Number | None, default: Number) -> Number:
    return default if value is None else value
