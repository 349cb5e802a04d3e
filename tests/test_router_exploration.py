"""Exploration: chance chooses as often as it says, says so, and stays out where it must."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gate_folders import BY, EXPERTS, registry_in
from test_router_routing import check_invariants, toy_gate, word_vectors

from router.comparison_log import LOG_FOLDER, read_pairs
from router.decision import Decision
from router.draw import propensity
from router.exploration import drawn, explore, may_explore
from router.gate import Gate
from router.live import LiveRouter
from router.logged_decision import draw_of
from router.overrides import Overrides
from router.router import Router
from router.situation import CALM, Situation

KEYS = [f"key {number}" for number in range(4000)]


def build(gate: Gate) -> Router:
    return Router(gate, word_vectors, EXPERTS, "general")


def decision(text: str = "python contract") -> Decision:
    return build(toy_gate()).route([("user", text)])


def probabilities(found: Decision) -> dict[str, float]:
    return {candidate.name: candidate.probability for candidate in found.candidates}


@contextmanager
def live(folder: Path, **settings: Any) -> Iterator[LiveRouter]:  # noqa: ANN401
    router = LiveRouter(registry_in(folder), build, **settings)
    try:
        yield router
    finally:
        router.close()


@pytest.mark.parametrize("text", ["python", "python contract", "banana", "hola banana"])
@pytest.mark.parametrize("rate", [0.05, 0.5, 1.0])
def test_every_choice_comes_as_often_as_its_propensity_says(text: str, rate: float) -> None:
    policy = decision(text)
    found = [explore(policy, rate, key) for key in KEYS]
    seen = Counter(frozenset(one.chosen) for one in found)
    told = {frozenset(one.chosen): draw_of(one).propensity for one in found}
    for choice, count in seen.items():
        chance = propensity(choice, policy.chosen, probabilities(policy), rate)
        assert told[choice] == pytest.approx(chance)
        spread = sqrt(chance * (1 - chance) / len(KEYS))
        assert abs(count / len(KEYS) - chance) <= 4 * spread + 1e-9
    explored = sum(draw_of(one).explored for one in found) / len(KEYS)
    assert abs(explored - rate) <= 4 * sqrt(rate * (1 - rate) / len(KEYS))


def test_an_explored_decision_is_whole_and_says_so() -> None:
    policy = decision()
    assert set(policy.chosen) == {"code", "legal"}
    found = next(one for key in KEYS if draw_of(one := explore(policy, 0.2, key)).explored)
    check_invariants(found)
    (name,) = found.chosen
    start = f"exploration (router.explore 0.2) drew {name} in place of code and legal; the policy: "
    assert found.reason == start + policy.reason or found.reason == (
        start.replace("code and legal", "legal and code") + policy.reason
    )
    assert draw_of(found).policy == policy.chosen
    assert probabilities(found) == probabilities(policy)


def test_chance_that_agrees_with_the_policy_changes_nothing_but_the_reason() -> None:
    policy = decision("banana")
    assert policy.chosen == ("general",)
    found = [explore(policy, 1.0, key) for key in KEYS]
    agreeing = next(one for one in found if one.chosen == ("general",))
    assert "drew general, as the policy; " in agreeing.reason
    assert replace(agreeing, reason=policy.reason, draw=None) == policy


def test_a_decision_that_is_not_explored_is_the_policys() -> None:
    policy = decision()
    found = next(one for key in KEYS if not draw_of(one := explore(policy, 0.5, key)).explored)
    assert replace(found, draw=None) == policy
    assert draw_of(found).propensity == pytest.approx(0.5)
    assert draw_of(policy).propensity == 1.0


def test_the_same_key_meets_the_same_chance() -> None:
    policy = decision()
    assert [explore(policy, 0.5, key) for key in KEYS[:50]] == [
        explore(policy, 0.5, key) for key in KEYS[:50]
    ]


def test_nobody_without_probability_is_drawn() -> None:
    policy = build(toy_gate()).route([("user", "python")], Overrides(experts=("code", "legal")))
    chances = policy.ranking.chances
    names = {drawn(chances, place) for place in np.linspace(0, 1, 2001)}
    assert names <= {"code", "legal"}


@pytest.mark.parametrize(
    ("overrides", "situation"),
    [
        (Overrides(weights={"code": 1.0}), CALM),
        (Overrides(experts=("code", "legal")), CALM),
        (Overrides(max_cost=1.0), CALM),
        (Overrides(min_confidence=0.9), CALM),
        (Overrides(), Situation(seconds_left=9.0)),
    ],
)
def test_chance_stays_out_where_the_request_bounds_who_answers(
    tmp_path: Path, overrides: Overrides, situation: Situation
) -> None:
    assert not may_explore(overrides, situation)
    with live(tmp_path, exploration=1.0) as router:
        for key in KEYS[:20]:
            found = router.route([("user", "python contract")], overrides, situation, key)
            assert found.draw is None
            assert "exploration" not in found.reason


def test_what_does_not_bound_it_is_explored(tmp_path: Path) -> None:
    overrides = Overrides(top_k=1, locale="en", preferences={"code": 0.5})
    with live(tmp_path, exploration=1.0) as router:
        found = router.route([("user", "python contract")], overrides, CALM, "key")
        assert draw_of(found).explored


def test_a_probe_is_neither_explored_nor_kept(tmp_path: Path) -> None:
    with live(tmp_path, exploration=1.0, keep_features=True) as router:
        found = router.route([("user", "python contract")])
        assert (found.draw, found.features) == (None, None)


def test_features_are_kept_where_asked_for(tmp_path: Path) -> None:
    router = build(toy_gate())
    with live(tmp_path, keep_features=True) as kept:
        found = kept.route([("user", "python contract")], key="key")
    wanted = router.read([("user", "python contract")]).joined()
    assert found.features is not None and found.features.dtype == np.float16
    np.testing.assert_allclose(found.features, wanted, atol=1e-3)
    assert found == decision()


def test_a_shadow_is_compared_with_the_policy_and_not_with_chance(tmp_path: Path) -> None:
    registry = registry_in(tmp_path, 9.0)
    registry.shadow("1", BY)
    router = LiveRouter(registry, build, exploration=1.0, poll_s=0.02)
    try:
        found = [router.route([("user", "python")], key=key) for key in KEYS[:60]]
    finally:
        router.close()
    leads = {pair.lead for pair in read_pairs(registry.folder / LOG_FOLDER)}
    assert leads == {decision("python").chosen[0]}
    assert all(draw_of(one).explored for one in found)


def test_the_traffic_is_that_of_who_acted(tmp_path: Path) -> None:
    with live(tmp_path, exploration=1.0) as router:
        found = [router.route([("user", "python contract")], key=key) for key in KEYS[:200]]
        counts = {c.tags["expert"]: c.value for c in router.counts() if c.name == "chosen"}
    assert counts == Counter(one.chosen[0] for one in found)
    assert len(counts) > 1
