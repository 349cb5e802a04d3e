import itertools
import math
import pickle

import numpy as np
import pytest

from router.overrides import OverrideError, Overrides, UnknownExpert
from router.policy import Policy, choose, decide, normalise, project, restrict

NAMES = ("general", "code", "legal", "multilingual", "medicine")
CERTAIN = {"general": 0.02, "code": 0.95, "legal": 0.02, "multilingual": 0.01}
MIXED = {"general": 0.02, "code": 0.5, "legal": 0.45, "multilingual": 0.03}
FLAT = {"general": 0.2, "code": 0.3, "legal": 0.26, "multilingual": 0.24}


def random_probabilities(count: int) -> list[dict[str, float]]:
    rng = np.random.default_rng(7)
    draws = rng.dirichlet([0.4] * len(NAMES), size=count)
    return [dict(zip(NAMES, row.tolist(), strict=True)) for row in draws]


def smallest_set_by_search(probabilities: dict[str, float], policy: Policy) -> set[str]:
    """The definition itself, over all subsets: the least members that reach top_p, best first."""
    for size in range(1, policy.top_k + 1):
        subsets = itertools.combinations(probabilities, size)
        best = max(subsets, key=lambda names: math.fsum(probabilities[name] for name in names))
        if math.fsum(probabilities[name] for name in best) >= policy.top_p:
            return set(best)
    return set(best)


def test_the_choice_is_the_smallest_set_that_reaches_top_p() -> None:
    for probabilities in random_probabilities(300):
        for top_k, top_p in ((1, 0.5), (2, 0.85), (3, 0.9), (5, 1.0)):
            policy = Policy(top_k=top_k, top_p=top_p, min_weight=0.0)
            chosen = choose(probabilities, policy)
            assert set(chosen) == smallest_set_by_search(probabilities, policy)


def test_weights_are_positive_sum_to_one_and_stand_heaviest_first() -> None:
    for probabilities in random_probabilities(300):
        weights = list(choose(probabilities, Policy(top_k=4, top_p=0.99)).values())
        assert math.isclose(math.fsum(weights), 1.0, abs_tol=1e-12)
        assert weights == sorted(weights, reverse=True)
        assert min(weights) >= 0.15


def test_weights_keep_the_proportions_of_the_probabilities() -> None:
    weights = choose(MIXED, Policy())
    assert weights == pytest.approx({"code": 0.5 / 0.95, "legal": 0.45 / 0.95})


def test_more_top_p_or_more_top_k_never_chooses_fewer_experts() -> None:
    for probabilities in random_probabilities(200):
        by_p = [
            len(choose(probabilities, Policy(top_k=5, top_p=p, min_weight=0.0)))
            for p in (0.3, 0.6, 0.9, 1.0)
        ]
        by_k = [
            len(choose(probabilities, Policy(top_k=k, top_p=1.0, min_weight=0.0)))
            for k in (1, 2, 3, 4)
        ]
        assert by_p == sorted(by_p)
        assert by_k == sorted(by_k)


def test_one_sure_expert_answers_alone() -> None:
    verdict = decide(CERTAIN, "general", Policy(), Overrides())
    assert dict(verdict.weights) == {"code": 1.0}
    assert verdict.reason == "code holds 0.95; top_p is 0.85"


def test_two_probable_experts_answer_together() -> None:
    verdict = decide(MIXED, "general", Policy(), Overrides())
    assert list(verdict.weights) == ["code", "legal"]
    assert "code and legal together hold 0.95, code alone 0.50" in verdict.reason


def test_a_member_below_the_least_weight_is_dropped() -> None:
    probabilities = {"general": 0.05, "code": 0.8, "legal": 0.15}
    assert list(choose(probabilities, Policy(min_weight=0.15))) == ["code", "legal"]
    assert list(choose(probabilities, Policy(min_weight=0.16))) == ["code"]
    verdict = decide(probabilities, "general", Policy(min_weight=0.16), Overrides())
    assert verdict.reason == "code holds 0.80; no other holds a share of 0.16"


def test_top_k_of_one_names_itself_in_the_reason() -> None:
    verdict = decide(MIXED, "general", Policy(), Overrides(top_k=1))
    assert dict(verdict.weights) == {"code": 1.0}
    assert verdict.reason == "code holds 0.50; top_k 1 allows no more"


def test_the_generalist_answers_when_no_expert_is_probable_enough() -> None:
    verdict = decide(FLAT, "general", Policy(min_confidence=0.45), Overrides())
    assert verdict.abstained
    assert dict(verdict.weights) == {"general": 1.0}
    assert "code (0.30), is below min_confidence 0.45" in verdict.reason


def test_abstention_begins_exactly_below_min_confidence() -> None:
    assert not decide(FLAT, "general", Policy(), Overrides(min_confidence=0.3)).abstained
    assert decide(FLAT, "general", Policy(), Overrides(min_confidence=0.3001)).abstained


def test_without_the_generalist_among_the_allowed_nothing_abstains() -> None:
    overrides = Overrides(experts=("code", "legal", "multilingual"), min_confidence=0.9)
    verdict = decide(FLAT, "general", Policy(), overrides)
    assert not verdict.abstained
    assert list(verdict.weights) == ["code", "legal"]


def test_restriction_renormalises_among_the_allowed() -> None:
    verdict = decide(FLAT, "general", Policy(), Overrides(experts=("legal", "multilingual")))
    assert verdict.probabilities == pytest.approx(
        {"general": 0.0, "code": 0.0, "legal": 0.52, "multilingual": 0.48}
    )
    assert verdict.weights == pytest.approx({"legal": 0.52, "multilingual": 0.48})
    assert verdict.reason.startswith("among the allowed legal and multilingual: ")


def test_a_single_allowed_expert_answers_even_where_the_gate_gives_it_nothing() -> None:
    probabilities = CERTAIN | {"remote": 0.0}
    verdict = decide(probabilities, "general", Policy(), Overrides(experts=("remote",)))
    assert dict(verdict.weights) == {"remote": 1.0}


def test_allowed_experts_without_any_probability_share_equally() -> None:
    probabilities = {"general": 1.0, "a": 0.0, "b": 0.0}
    assert restrict(probabilities, ["a", "b"], "general") == {"general": 0.0, "a": 0.5, "b": 0.5}
    nothing = {"general": 0.0, "a": 0.0, "b": 1.0}
    assert restrict(nothing, ["general", "a"], "general") == {"general": 1.0, "a": 0.0, "b": 0.0}


def test_forced_weights_are_normalised_and_obeyed_exactly() -> None:
    forced = {"legal": 3.0, "general": 1.0, "code": 0.0}
    verdict = decide(CERTAIN, "general", Policy(top_k=1), Overrides(weights=forced))
    assert dict(verdict.weights) == {"legal": 0.75, "general": 0.25}
    assert list(verdict.weights) == ["legal", "general"]
    assert verdict.probabilities == CERTAIN
    assert verdict.reason == "the caller set the weights: legal 0.75, general 0.25"


def test_huge_and_tiny_forced_weights_still_sum_to_one() -> None:
    weights = normalise({"a": 1e308, "b": 1e308, "c": 5e-324})
    assert weights == {"a": 0.5, "b": 0.5}


def test_forced_weights_obey_the_restriction() -> None:
    overrides = Overrides(experts=("code",), weights={"legal": 1.0})
    with pytest.raises(UnknownExpert) as caught:
        decide(CERTAIN, "general", Policy(), overrides)
    assert caught.value.param == "weights.legal"


@pytest.mark.parametrize(
    ("overrides", "param"),
    [
        (Overrides(experts=("cooking",)), "experts"),
        (Overrides(weights={"cooking": 1.0}), "weights.cooking"),
    ],
)
def test_unknown_expert_is_named_with_those_that_exist(overrides: Overrides, param: str) -> None:
    with pytest.raises(UnknownExpert) as caught:
        decide(CERTAIN, "general", Policy(), overrides)
    assert caught.value.param == param
    assert str(caught.value) == (
        f"{param}: no expert 'cooking' here; there are general, code, legal and multilingual."
    )


@pytest.mark.parametrize(
    ("key", "value", "param"),
    [
        ("top_k", 0, "top_k"),
        ("top_k", True, "top_k"),
        ("top_k", 1.5, "top_k"),
        ("top_p", 0.0, "top_p"),
        ("top_p", 1.01, "top_p"),
        ("top_p", math.nan, "top_p"),
        ("min_confidence", -0.1, "min_confidence"),
        ("min_confidence", "high", "min_confidence"),
        ("experts", (), "experts"),
        ("weights", {}, "weights"),
        ("weights", {"code": 0.0, "legal": 0}, "weights"),
        ("weights", {"code": -1.0}, "weights.code"),
        ("weights", {"code": math.nan}, "weights.code"),
        ("weights", {"code": math.inf}, "weights.code"),
        ("weights", {"code": "1"}, "weights.code"),
    ],
)
def test_values_out_of_range_are_refused_with_their_key(
    key: str, value: object, param: str
) -> None:
    with pytest.raises(OverrideError) as caught:
        Overrides(**{key: value})  # type: ignore[arg-type]
    assert caught.value.param == param
    assert str(caught.value).startswith(f"{param}: ")
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("key", ["top_k", "top_p", "min_confidence", "min_weight"])
def test_a_policy_out_of_range_is_refused(key: str) -> None:
    with pytest.raises(OverrideError, match=key):
        Policy(**{key: -1})  # type: ignore[arg-type]


def test_errors_survive_pickling() -> None:
    error = pickle.loads(pickle.dumps(UnknownExpert("experts", "no expert 'x' here.")))
    assert isinstance(error, UnknownExpert)
    assert (error.param, str(error)) == ("experts", "experts: no expert 'x' here.")


def test_labels_without_an_expert_leave_their_mass_to_the_generalist() -> None:
    gate = {"code": 0.5, "legal": 0.3, "general": 0.2}
    assert project(gate, ("code", "remote"), "base") == {
        "code": 0.5,
        "remote": 0.0,
        "base": pytest.approx(0.5),
    }


def test_an_expert_that_the_gate_does_not_know_is_never_chosen_unforced() -> None:
    probabilities = {"general": 0.0, "code": 1.0, "remote": 0.0}
    assert list(choose(probabilities, Policy(top_k=3, top_p=1.0, min_weight=0.0))) == ["code"]
