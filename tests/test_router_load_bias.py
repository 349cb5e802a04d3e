"""Balancing: the bias follows its formula, evens out queues, and touches no weight."""

from __future__ import annotations

import math

import numpy as np
import pytest

from router.load_bias import LoadBias
from router.policy import Policy, choose

PAIR = {"code": 0.52, "legal": 0.48}


def test_a_step_is_that_of_the_formula() -> None:
    rng = np.random.default_rng(0)
    names = tuple("abcde")
    bias = LoadBias(names, step=0.02, most=0.05, tolerance=0.0)
    expected = dict.fromkeys(names, 0.0)
    for _ in range(200):
        loads = dict(zip(names, rng.exponential(2.0, 5).tolist(), strict=True))
        mean = sum(loads.values()) / 5
        for name in names:
            moved = expected[name] + 0.02 * np.sign(mean - loads[name])
            expected[name] = float(np.clip(moved, -0.05, 0.05))
        bias = bias.after(loads)
        for name in names:
            assert bias.values.get(name, 0.0) == pytest.approx(expected[name], abs=1e-12)


def test_loads_within_the_tolerance_bring_the_biases_back_to_nothing() -> None:
    bias = LoadBias(("a", "b"), step=0.03, most=0.1, tolerance=0.5)
    for _ in range(10):
        bias = bias.after({"a": 9.0})
    assert bias.values == pytest.approx({"a": -0.1, "b": 0.1})
    for expected in (0.07, 0.04, 0.01):
        bias = bias.after({"a": 0.3})
        assert bias.values == pytest.approx({"a": -expected, "b": expected})
    assert bias.after({}).values == {}


def test_without_load_nothing_is_made() -> None:
    bias = LoadBias(tuple("abc"))
    assert bias.after({}) is bias


def test_the_bias_changes_who_is_chosen_and_not_the_weights() -> None:
    one = Policy(top_k=1)
    assert choose(PAIR, one) == {"code": 1.0}
    assert choose(PAIR, one, biases={"legal": 0.1}) == {"legal": 1.0}
    both = choose(PAIR, Policy(top_k=2, top_p=1.0), biases={"legal": 0.1})
    assert list(both.items()) == [("code", pytest.approx(0.52)), ("legal", pytest.approx(0.48))]


def test_the_bias_brings_in_nobody_who_is_thought_wrong() -> None:
    sure = {"code": 0.95, "legal": 0.05, "remote": 0.0}
    biases = {"code": -0.1, "legal": 0.1, "remote": 0.1}
    for top_k in (1, 2, 3):
        policy = Policy(top_k=top_k, top_p=1.0)
        assert choose(sure, policy, biases=biases) == {"code": 1.0}


def waits(balanced: bool) -> list[float]:
    """Queue seconds of the longer of two queues, each of which serves one request in 1.6 ticks.

    Requests come one a tick, for either expert nearly alike: without balance all go to one.
    """
    rng = np.random.default_rng(1)
    queues, bias, longest = {"code": 0.0, "legal": 0.0}, LoadBias(("code", "legal")), []
    for _ in range(600):
        probability = float(np.clip(rng.normal(0.54, 0.03), 0.501, 0.6))
        chances = {"code": probability, "legal": 1.0 - probability}
        bias = bias.after(queues)
        biases = bias.values if balanced else {}
        (name,) = choose(chances, Policy(top_k=1), biases=biases)
        queues[name] += 1.6
        queues = {name: max(0.0, seconds - 1.0) for name, seconds in queues.items()}
        longest.append(max(queues.values()))
    return longest


def test_queues_stay_short_that_would_grow_without_end() -> None:
    assert waits(balanced=False)[-1] > 300
    assert max(waits(balanced=True)) < 30
    assert math.fsum(waits(balanced=True)) < math.fsum(waits(balanced=False)) / 10
