"""Cost, deadline, load and promised risk: who is chosen under them, and what the reason says."""

from __future__ import annotations

import math

import numpy as np
import pytest

from router.limits import dollars
from router.overrides import OverrideError, Overrides
from router.policy import Policy, Verdict, decide
from router.situation import Situation

SURE = {"general": 0.02, "code": 0.95, "legal": 0.02, "remote": 0.01}
BOTH = {"general": 0.02, "code": 0.5, "legal": 0.45, "remote": 0.03}
PRICES = {"code": 0.004, "legal": 0.01, "remote": 0.02}


def decided(
    probabilities: dict[str, float],
    situation: Situation,
    policy: Policy | None = None,
    **overrides: object,
) -> Verdict:
    return decide(
        probabilities,
        "general",
        policy or Policy(),
        Overrides(**overrides),  # type: ignore[arg-type]
        situation,
    )


def within(budget: float, probabilities: dict[str, float], **overrides: object) -> Verdict:
    return decided(probabilities, Situation(costs=PRICES), max_cost=budget, **overrides)


def hurried(waits: dict[str, float], seconds: float, probabilities: dict[str, float]) -> Verdict:
    return decided(probabilities, Situation(waits=waits, seconds_left=seconds))


def test_a_budget_that_suffices_changes_nothing() -> None:
    assert within(0.014, BOTH) == decide(BOTH, "general", Policy(), Overrides())


def test_the_set_ends_before_an_expert_that_no_longer_fits() -> None:
    verdict = within(0.0139, BOTH)
    assert dict(verdict.weights) == {"code": 1.0}
    assert verdict.reason == "code holds 0.50; max_cost 0.0139 USD allows no more"
    assert dict(verdict.probabilities) == pytest.approx(BOTH)


def test_an_expert_that_is_too_dear_leaves_its_place_to_the_next() -> None:
    legal_first = {"general": 0.03, "code": 0.46, "legal": 0.48, "remote": 0.03}
    verdict = within(0.005, legal_first)
    assert dict(verdict.weights) == {"code": 1.0}
    assert verdict.reason.endswith(
        "; legal (0.48) is estimated at 0.01 USD, over max_cost 0.005 USD"
    )


def test_the_generalist_answers_where_the_sure_expert_is_too_dear() -> None:
    verdict = within(0.0, SURE)
    assert dict(verdict.weights) == {"general": 1.0}
    assert verdict.abstained
    assert "code (0.95) is estimated at 0.004 USD, over max_cost 0 USD" in verdict.reason


def test_what_is_left_is_not_surer_for_being_left() -> None:
    # Alone with the generalist legal would hold half, but the request was plainly for code.
    verdict = within(0.003, {"general": 0.02, "code": 0.96, "legal": 0.02})
    assert dict(verdict.weights) == {"general": 1.0}


def test_a_request_that_nobody_can_answer_for_its_price_says_what_the_cheapest_costs() -> None:
    costs = {"general": 0.001, **PRICES}
    with pytest.raises(OverrideError) as caught:
        decided(BOTH, Situation(costs=costs), max_cost=0.0005)
    assert caught.value.param == "max_cost"
    assert "general, is estimated at 0.001 USD" in caught.value.message
    assert "max_tokens" in caught.value.message


def test_only_the_allowed_count_for_the_cheapest() -> None:
    with pytest.raises(OverrideError, match="code, is estimated at 0.004 USD"):
        within(0.003, BOTH, experts=("code", "legal"))


def test_experts_that_the_caller_forces_must_fit_together() -> None:
    assert within(0.014, BOTH, weights={"code": 1, "legal": 1}).weights["legal"] == 0.5
    assert within(0.004, BOTH, weights={"code": 1, "legal": 0}).weights == {"code": 1.0}
    with pytest.raises(OverrideError, match="code and legal are estimated at 0.014 USD") as caught:
        within(0.0139, BOTH, weights={"code": 1, "legal": 1})
    assert caught.value.param == "max_cost"


def test_where_nothing_probable_is_left_the_generalist_goes_before_the_cheapest() -> None:
    certain = {"general": 0.0, "code": 1.0, "legal": 0.0}
    costs = {"general": 0.002, "code": 1.0, "legal": 0.001}
    asked = Situation(costs=costs)
    policy = Policy(min_confidence=0.0)
    assert dict(decided(certain, asked, policy, max_cost=0.5).weights) == {"general": 1.0}
    assert dict(decided(certain, asked, policy, max_cost=0.001).weights) == {"legal": 1.0}


def test_a_random_choice_never_costs_more_than_is_allowed() -> None:
    rng = np.random.default_rng(3)
    names = list(SURE)
    for _ in range(300):
        row = dict(zip(names, rng.dirichlet([0.5] * 4).tolist(), strict=True))
        costs = dict(zip(names, rng.exponential(1.0, 4).tolist(), strict=True))
        most = float(rng.uniform(min(costs.values()), 3.0)) if min(costs.values()) < 3 else 9.0
        policy = Policy(top_k=4, top_p=1.0, min_confidence=0.3)
        verdict = decided(row, Situation(costs=costs), policy, max_cost=most)
        assert sum(costs[name] for name in verdict.weights) <= most + 1e-9
        assert math.fsum(verdict.weights.values()) == pytest.approx(1.0)
        assert math.fsum(verdict.probabilities.values()) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("amount", "text"),
    [(0.0, "0 USD"), (0.00012, "0.00012 USD"), (10.0, "10 USD"), (0.014, "0.014 USD")],
)
def test_small_amounts_keep_their_digits(amount: float, text: str) -> None:
    assert dollars(amount) == text


def test_queues_shorter_than_what_is_left_change_nothing() -> None:
    calm = decide(BOTH, "general", Policy(), Overrides())
    assert hurried({"code": 2.0, "legal": 2.9}, 3.0, BOTH) == calm


def test_without_a_deadline_queues_are_not_looked_at() -> None:
    calm = decide(BOTH, "general", Policy(), Overrides())
    assert decided(BOTH, Situation(waits={"code": 99.0})) == calm


def test_fewer_experts_answer_before_others_do() -> None:
    verdict = hurried({"legal": 12.0}, 3.0, BOTH)
    assert dict(verdict.weights) == {"code": 1.0}
    assert verdict.reason.endswith(
        "; queue legal 12.0 s, longer than the 3.0 s left: others answer"
    )


def test_the_other_of_two_experts_answers_where_the_first_is_late() -> None:
    assert dict(hurried({"code": 12.0}, 3.0, BOTH).weights) == {"legal": 1.0}


def test_the_generalist_answers_where_the_only_sure_expert_is_late() -> None:
    verdict = hurried({"code": 12.0}, 3.0, SURE)
    assert dict(verdict.weights) == {"general": 1.0}
    assert verdict.abstained
    assert "queue code 12.0 s" in verdict.reason


def test_where_all_are_late_one_expert_alone_is_asked() -> None:
    verdict = hurried(dict.fromkeys(BOTH, 12.0), 3.0, BOTH)
    assert dict(verdict.weights) == {"code": 1.0}
    assert verdict.reason.endswith("no queue is shorter, one expert alone is asked")


def test_a_late_expert_is_not_replaced_by_one_that_is_too_dear() -> None:
    situation = Situation(costs=PRICES, waits={"code": 9.0}, seconds_left=1.0)
    verdict = decided(BOTH, situation, max_cost=0.005)
    assert dict(verdict.weights) == {"general": 1.0}


def test_load_that_changed_the_choice_is_named() -> None:
    close = {"general": 0.02, "code": 0.5, "legal": 0.48}
    biases = {"code": -0.02, "legal": 0.02}
    verdict = decided(close, Situation(biases=biases), Policy(top_k=1))
    assert dict(verdict.weights) == {"legal": 1.0}
    assert verdict.reason.endswith("; load moved the choice from code to legal")
    assert dict(verdict.probabilities) == pytest.approx(close)
    calm = decided(SURE, Situation(biases=biases))
    assert calm.reason == "code holds 0.95; top_p is 0.85"


def test_an_abstention_names_the_risk_that_was_promised() -> None:
    policy = Policy(min_confidence=0.62, max_risk=0.1)
    verdict = decided(BOTH, Situation(), policy)
    assert verdict.abstained
    assert verdict.reason == (
        "the most probable, code (0.50), is below 0.62, the confidence that max_risk 0.1 asks; "
        "the generalist answers"
    )


def test_a_request_s_own_confidence_goes_before_the_promise() -> None:
    policy = Policy(min_confidence=0.62, max_risk=0.1)
    verdict = decided(BOTH, Situation(), policy, min_confidence=0.55)
    assert "is below min_confidence 0.55" in verdict.reason
