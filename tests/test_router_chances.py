"""Numbers by name over one array, the ranking made of them, and choices among a thousand."""

from __future__ import annotations

import math
import pickle
from collections.abc import Mapping

import numpy as np
import pytest

from router.chances import Chances, Roster, largest
from router.decision import Candidate, Decision
from router.limits import Limits
from router.overrides import OverrideError, Overrides
from router.policy import Policy, choose, decide
from router.ranking import Ranking
from router.situation import Situation

NAMES = tuple(f"expert {number}" for number in range(999)) + ("general",)


def crowd(seed: int, concentration: float = 0.01) -> dict[str, float]:
    """Probabilities of a thousand experts, few of them above a hundredth."""
    row = np.random.default_rng(seed).dirichlet([concentration] * len(NAMES))
    return dict(zip(NAMES, row.tolist(), strict=True))


def chosen_one_by_one(
    probabilities: Mapping[str, float],
    policy: Policy,
    limits: Limits,
    biases: Mapping[str, float],
) -> dict[str, float]:
    """The choice as its definition says it, one expert after the other."""
    able = [name for name, p in probabilities.items() if p > 0.0]
    able.sort(key=lambda name: -(probabilities[name] + biases.get(name, 0.0)))
    taken: list[str] = []
    for name in able[: policy.top_k]:
        if taken and not limits.fits([*taken, name]):
            break
        taken.append(name)
        if math.fsum(probabilities[one] for one in taken) >= policy.top_p:
            break
    taken.sort(key=lambda name: -probabilities[name])
    while len(taken) > 1:
        mass = math.fsum(probabilities[one] for one in taken)
        if probabilities[taken[-1]] / mass >= policy.min_weight:
            break
        taken.pop()
    total = math.fsum(probabilities[one] for one in taken)
    return {name: probabilities[name] / total for name in taken}


def test_the_largest_are_those_of_a_stable_sort() -> None:
    dice = np.random.default_rng(0)
    for _ in range(200):
        values = dice.integers(0, 6, dice.integers(1, 30)).astype(np.float64)
        count = int(dice.integers(1, 35))
        expected = sorted(range(len(values)), key=lambda place: -values[place])[:count]
        assert largest(values, count) == expected


def test_chances_are_a_mapping_like_any_other() -> None:
    plain = crowd(1)
    chances = Chances.of(plain)
    assert chances == plain and dict(chances.items()) == plain
    assert (len(chances), chances["general"]) == (1000, plain["general"])
    assert Chances.of(chances) is chances
    assert "expert 3" in chances and "nobody" not in chances
    with pytest.raises(KeyError):
        chances["nobody"]
    again = pickle.loads(pickle.dumps(chances))
    assert again == plain and list(again) == list(plain)
    assert pickle.loads(pickle.dumps(Roster(()))).names == ()


def test_a_choice_among_a_thousand_is_the_one_by_definition() -> None:
    dice = np.random.default_rng(3)
    for seed in range(60):
        probabilities = crowd(seed, 0.003)
        policy = Policy(top_k=int(dice.integers(1, 6)), top_p=float(dice.uniform(0.3, 1.0)))
        biases = {NAMES[n]: float(dice.normal(0, 0.2)) for n in dice.integers(0, 1000, 30)}
        limits = Limits(0.5, {name: float(dice.exponential(0.3)) for name in NAMES})
        for cap in (Limits(), limits):
            for bias in ({}, biases):
                found = choose(probabilities, policy, cap, bias)
                expected = chosen_one_by_one(probabilities, policy, cap, bias)
                assert found == pytest.approx(expected) and list(found) == list(expected)


def test_a_decision_among_a_thousand_sums_to_one_under_every_limit() -> None:
    for seed in range(20):
        dice = np.random.default_rng(seed)
        costs = {name: float(dice.exponential(1.0)) for name in NAMES}
        waits = {name: float(dice.exponential(1.0)) for name in NAMES}
        situation = Situation(costs=costs, waits=waits, seconds_left=0.5)
        allowed = tuple(NAMES[n] for n in dice.integers(0, 1000, 400))
        overrides = Overrides(max_cost=1.0, experts=allowed, top_k=5)
        verdict = decide(crowd(seed), "general", Policy(), overrides, situation)
        assert math.fsum(verdict.weights.values()) == pytest.approx(1.0)
        assert math.fsum(dict(verdict.probabilities).values()) == pytest.approx(1.0)
        assert set(verdict.weights) <= set(allowed)
        assert sum(costs[name] for name in verdict.weights) <= 1.0 + 1e-9


def test_a_disabled_expert_leaves_its_probability_to_the_others_in_proportion() -> None:
    probabilities = {"general": 0.1, "code": 0.6, "legal": 0.2, "math": 0.1}
    verdict = decide(
        probabilities, "general", Policy(), Overrides(), Situation(), disabled=("code",)
    )
    assert dict(verdict.probabilities) == pytest.approx(
        {"general": 0.25, "code": 0.0, "legal": 0.5, "math": 0.25}
    )
    allowed = Overrides(experts=("general", "legal", "math"))
    restricted = decide(probabilities, "general", Policy(), allowed)
    assert verdict.weights == restricted.weights
    assert "code (0.60), disabled in this service, left it to the others" in verdict.reason


def test_a_disabled_expert_that_nobody_would_miss_is_not_named() -> None:
    sure = {"general": 0.02, "code": 0.03, "legal": 0.95}
    verdict = decide(sure, "general", Policy(), Overrides(), disabled=("code",))
    assert verdict.reason == "legal holds 0.98; top_p is 0.85"


def test_only_disabled_experts_cannot_be_asked_for() -> None:
    probabilities = {"general": 0.1, "code": 0.9}
    with pytest.raises(OverrideError, match="experts: code: disabled in this service"):
        decide(probabilities, "general", Policy(), Overrides(experts=("code",)), disabled=("code",))
    with pytest.raises(OverrideError, match="no expert 'code' here"):
        decide(
            probabilities,
            "general",
            Policy(),
            Overrides(weights={"code": 1.0}),
            disabled=("code",),
        )


def test_candidates_stand_most_probable_first_and_equal_ones_in_their_order() -> None:
    chances = Chances.of({"a": 0.2, "b": 0.3, "c": 0.2, "d": 0.3})
    ranking = Ranking(chances, {"b": 0.6, "c": 0.4})
    expected = [
        Candidate("b", 0.3, 0.6),
        Candidate("d", 0.3, 0.0),
        Candidate("a", 0.2, 0.0),
        Candidate("c", 0.2, 0.4),
    ]
    assert list(ranking) == expected
    assert [ranking[place] for place in range(4)] == expected
    assert ranking[1:3] == expected[1:3] and ranking[-1] == expected[-1]
    assert Ranking.of(tuple(expected)) == Ranking.of(tuple(expected)) == Ranking.of(ranking)
    assert hash(Ranking.of(ranking)) == hash(ranking)
    assert pickle.loads(pickle.dumps(ranking)) == ranking


def test_the_first_few_hold_whoever_has_a_weight() -> None:
    plain = crowd(5, 1.0)
    ranked = sorted(plain, key=lambda name: -plain[name])
    last = ranked[-1]
    ranking = Ranking(Chances.of(plain), {last: 1.0})
    found = ranking.top(64)
    assert [candidate.name for candidate in found] == [*ranked[:64], last]
    assert found[-1].weight == 1.0
    assert len(ranking.top(5000)) == 1000
    np.testing.assert_array_equal(ranking.probabilities(["nobody", last]), [0.0, plain[last]])


def test_a_decision_tells_weights_whatever_its_candidates_are_made_of() -> None:
    plain = (Candidate("code", 0.6, 0.7), Candidate("legal", 0.4, 0.3))
    decision = Decision(
        candidates=plain,
        chosen=("code", "legal"),
        k=2,
        reason="",
        fallback=False,
        abstained=False,
        router_version="x",
        seconds=0.0,
        vector=np.zeros(2, dtype=np.float32),
    )
    assert decision.weights() == {"code": 0.7, "legal": 0.3}
    assert decision.ranking.chances == {"code": 0.6, "legal": 0.4}
