"""Two versions' decisions on the same requests: how often they agree, with intervals."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from router.decision import Decision

Z = 1.959964
"""The normal quantile of intervals that hold 95 % of the time."""

_LEAST = 1e-12


@dataclass(frozen=True)
class Pair:
    """One request decided by two versions; both are named by their hash.

    `role` is what the other version was: shadow or canary. `at` is in seconds since 1970. The lead
    is the expert with the largest weight, `chosen` all of them; `divergence` is that of the other's
    probabilities from the current version's, KL(current, other) in nats.
    """

    role: str
    current: str
    other: str
    at: float
    lead: str
    other_lead: str
    chosen: tuple[str, ...]
    other_chosen: tuple[str, ...]
    divergence: float

    @property
    def same_lead(self) -> bool:
        """Whether both would have led with the same expert."""
        return self.lead == self.other_lead

    @property
    def same_set(self) -> bool:
        """Whether both chose the same experts, in whatever order."""
        return set(self.chosen) == set(self.other_chosen)


@dataclass(frozen=True)
class Estimate:
    """A share or a mean with the bounds of its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Agreement:
    """What `pairs` requests show; `moved` counts the leads that the other version chose instead.

    `divergence` is the mean in nats.
    """

    pairs: int
    same_lead: Estimate
    same_set: Estimate
    divergence: Estimate
    moved: Mapping[str, int]


def pair(role: str, current: Decision, other: Decision, at: float) -> Pair:
    """Return the pair of two decisions on one request."""
    return Pair(
        role=role,
        current=current.router_version,
        other=other.router_version,
        at=at,
        lead=current.chosen[0],
        other_lead=other.chosen[0],
        chosen=current.chosen,
        other_chosen=other.chosen,
        divergence=divergence(_probabilities(current), _probabilities(other)),
    )


def divergence(current: Mapping[str, float], other: Mapping[str, float]) -> float:
    """Return KL(current, other) in nats, 0 or more; a name that `other` lacks counts as 1e-12."""
    terms = (
        p * math.log(p / max(other.get(name, 0.0), _LEAST)) for name, p in current.items() if p > 0
    )
    return max(0.0, math.fsum(terms))


def agreement(pairs: Sequence[Pair]) -> Agreement:
    """Return what some pairs show together.

    Raises `ValueError` without pairs.
    """
    if not pairs:
        raise ValueError("there is nothing to compare.")
    moved = Counter(found.other_lead for found in pairs if not found.same_lead)
    return Agreement(
        pairs=len(pairs),
        same_lead=wilson(sum(found.same_lead for found in pairs), len(pairs)),
        same_set=wilson(sum(found.same_set for found in pairs), len(pairs)),
        divergence=mean([found.divergence for found in pairs]),
        moved=dict(moved.most_common()),
    )


def by_expert(pairs: Iterable[Pair]) -> dict[str, Agreement]:
    """Return the agreement by the current version's lead, the most frequent first."""
    groups: dict[str, list[Pair]] = {}
    for found in pairs:
        groups.setdefault(found.lead, []).append(found)
    ranked = sorted(groups, key=lambda name: (-len(groups[name]), name))
    return {name: agreement(groups[name]) for name in ranked}


def wilson(hits: int, count: int) -> Estimate:
    """Return a share with Wilson's score interval (E. B. Wilson, 1927); `count` is at least 1."""
    share, square = hits / count, Z * Z
    middle = (share + square / (2 * count)) / (1 + square / count)
    spread = math.sqrt(share * (1 - share) / count + square / (4 * count * count))
    half = Z * spread / (1 + square / count)
    return Estimate(share, max(0.0, middle - half), min(1.0, middle + half))


def mean(values: Sequence[float]) -> Estimate:
    """Return a mean of values of 0 or more with its normal interval; one value says nothing."""
    count = len(values)
    middle = math.fsum(values) / count
    if count == 1:
        return Estimate(middle, 0.0, math.inf)
    variance = math.fsum((value - middle) ** 2 for value in values) / (count - 1)
    half = Z * math.sqrt(variance / count)
    return Estimate(middle, max(0.0, middle - half), middle + half)


def _probabilities(decision: Decision) -> dict[str, float]:
    return {candidate.name: candidate.probability for candidate in decision.candidates}
