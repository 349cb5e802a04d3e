"""Regret and its controls on tables small enough to count, and on synthetic losses."""

import numpy as np
import pytest

from router.controls import (
    BEST_SINGLE,
    GENERALIST,
    ORACLE,
    SHUFFLED,
    SHUFFLED_MIX,
    UNIFORM,
    Stakes,
    compare,
    controls,
    decisive_accuracy,
    one_hot,
    ratio,
)
from router.intervals import Macro
from router.promise import try_promises

LOSSES = np.array([[1.0, 2.0, 3.0], [3.0, 1.0, 2.0], [2.5, 2.0, 1.0], [1.0, 1.5, 1.2]])
DOMAINS = ("a", "b", "b", "a")


def stakes() -> Stakes:
    return Stakes(LOSSES, DOMAINS)


def test_regret_is_the_cost_above_the_best_expert() -> None:
    lead = one_hot(np.array([1, 1, 2, 2]), 3)
    assert stakes().regrets(lead).tolist() == pytest.approx([1.0, 0.0, 0.0, 0.2])
    mix = np.array([[0.5, 0.5, 0.0]] * 4)
    assert stakes().costs(mix).tolist() == pytest.approx([1.5, 2.0, 2.25, 1.25])


def test_controls_are_those_counted_by_hand() -> None:
    lead = one_hot(np.array([0, 1, 2, 0]), 3)
    mix = np.array([[0.5, 0.5, 0.0]] * 2 + [[0.0, 0.0, 1.0]] * 2)
    found = controls(stakes(), lead, mix, generalist=2)
    assert stakes().regrets(found[ORACLE]).tolist() == [0.0] * 4
    assert stakes().costs(found[UNIFORM]).tolist() == pytest.approx(LOSSES.mean(axis=1).tolist())
    assert stakes().costs(found[GENERALIST]).tolist() == [3.0, 2.0, 1.0, 1.2]
    # Macro losses: (1 + 2.75) / 2, (1.75 + 1.5) / 2, (2.1 + 1.5) / 2.
    assert stakes().costs(found[BEST_SINGLE]).tolist() == [2.0, 1.0, 2.0, 1.5]
    assert found[SHUFFLED][0].tolist() == [0.5, 0.25, 0.25]
    assert found[SHUFFLED_MIX][3].tolist() == [0.25, 0.25, 0.5]


def test_the_shuffled_control_is_the_mean_over_random_orders() -> None:
    dice = np.random.default_rng(0)
    losses = dice.gamma(2.0, 1.0, (60, 3))
    at = Stakes(losses, ("a",) * 60)
    lead = one_hot(losses.argmin(axis=1), 3)
    exact = at.costs(controls(at, lead, lead, 0)[SHUFFLED]).mean()
    orders = [at.costs(lead[dice.permutation(60)]).mean() for _ in range(3000)]
    assert exact == pytest.approx(np.mean(orders), abs=4 * np.std(orders) / 3000**0.5)


def test_shuffling_and_uniform_experts_run_as_many_as_they_hand_out() -> None:
    lead = one_hot(np.array([0, 1, 2, 0]), 3)
    found = controls(stakes(), lead, lead, 0)
    assert all(weights.sum(axis=1) == pytest.approx(np.ones(4)) for weights in found.values())


def synthetic(rows: int, skill: float, seed: int) -> tuple[Stakes, np.ndarray, np.ndarray]:
    """Losses with one good expert a row; leads that find it with probability `skill`."""
    dice = np.random.default_rng(seed)
    best = dice.integers(3, size=rows)
    losses = 1.0 + dice.gamma(2.0, 0.3, (rows, 3))
    losses[np.arange(rows), best] = 1.0
    guess = np.where(dice.random(rows) < skill, best, dice.integers(3, size=rows))
    domains = tuple("abc"[place] for place in best)
    return Stakes(losses, domains), one_hot(guess, 3), best


def test_a_perfect_router_has_no_regret_and_beats_every_control() -> None:
    at, lead, best = synthetic(300, 1.0, 1)
    routers = {"router": lead, **controls(at, lead, lead, 0)}
    found = compare(at, routers, "router", resamples=200)
    assert found["router"].macro.value == 0.0
    assert found["router"].over_best_single is not None
    assert found["router"].over_best_single.value == 0.0
    for name in (SHUFFLED, UNIFORM, BEST_SINGLE, GENERALIST):
        assert found[name].against_router.high < 0.0
    assert found[ORACLE].against_router.value == 0.0
    counted = decisive_accuracy(at, best, 0.05, at.domains)
    assert counted is not None and counted[1].value == 1.0


def test_a_random_router_does_not_beat_chance() -> None:
    at, lead, _ = synthetic(400, 0.0, 2)
    found = compare(at, {"router": lead, **controls(at, lead, lead, 0)}, "router", resamples=300)
    for name in (SHUFFLED, UNIFORM):
        assert found[name].against_router.low < 0.0 < found[name].against_router.high


def test_ratios_are_paired_and_missing_where_nothing_is_lost() -> None:
    macro = Macro(["a"] * 50)
    dice = np.random.default_rng(3)
    bottom = dice.gamma(1.0, 1.0, 50)
    found = ratio(macro, 0.25 * bottom, bottom, resamples=100)
    assert found is not None
    assert (found.value, found.low, found.high) == pytest.approx((0.25, 0.25, 0.25))
    assert ratio(macro, bottom, np.zeros(50)) is None


def test_a_draw_without_anything_below_the_line_breaks_no_ratio() -> None:
    macro = Macro(["one"] * 4)
    found = ratio(macro, np.array([0.1, 0.1, 0.1, 0.1]), np.array([0.4, 0.0, 0.0, 0.0]))
    assert found is not None and found.value == pytest.approx(1.0)
    assert found.low < 1.0 < found.high < np.inf


def test_rows_whose_experts_are_alike_do_not_count_as_decided() -> None:
    at = Stakes(np.array([[1.0, 1.01], [1.0, 2.0]]), ("a", "a"))
    assert at.decisive(0.05).tolist() == [False, True]
    found = decisive_accuracy(at, np.array([1, 0]), 0.05, at.domains)
    assert found is not None
    assert (found[0], found[1].value) == (1, 1.0)
    assert decisive_accuracy(at, np.array([1, 0]), 5.0, at.domains) is None


def test_a_threshold_that_lets_nothing_through_keeps_every_promise_and_routes_nothing() -> None:
    confidences, regrets = np.linspace(0, 1, 100), np.ones(100)
    inside = np.ones(100, dtype=bool)
    (found,) = try_promises(
        confidences, regrets, inside, inside, lambda *_: np.inf, alphas=(0.1,), resplits=10
    )
    assert (found.kept, found.routed, found.routed_in_domain) == (1.0, 0.0, 0.0)


def test_a_careless_threshold_breaks_its_promise() -> None:
    dice = np.random.default_rng(4)
    confidences, bad = dice.random(400), dice.random(400) < 0.3
    inside = dice.random(400) < 0.5
    (found,) = try_promises(
        confidences, bad * 1.0, inside, bad >= 0, lambda *_: 0.0, alphas=(0.1,), resplits=50
    )
    assert found.kept == 0.0
    assert found.violations == pytest.approx(bad.mean(), abs=0.01)
    assert found.routed == found.routed_in_domain == 1.0


def test_nothing_is_promised_of_what_the_generalist_leads() -> None:
    led = np.arange(200) % 2 == 0
    seen: list[int] = []

    def threshold(some: np.ndarray, regrets: np.ndarray, _alpha: float, _epsilon: float) -> float:
        assert not regrets.any()
        seen.append(len(some))
        return 0.0

    given = np.ones(200), np.where(led, 0.0, 9.0), np.ones(200, dtype=bool), led
    (found,) = try_promises(*given, threshold, alphas=(0.1,), resplits=20)
    assert (found.kept, found.violations) == (1.0, 0.0)
    assert found.routed == found.routed_in_domain == pytest.approx(0.5, abs=0.05)
    assert np.mean(seen) == pytest.approx(50, abs=5)


def test_a_threshold_sees_one_half_and_is_tried_on_the_other() -> None:
    confidences = np.arange(100) / 100.0
    seen: list[set[float]] = []

    def threshold(some: np.ndarray, regrets: np.ndarray, alpha: float, epsilon: float) -> float:
        assert (alpha, epsilon) == (0.2, 0.05)
        assert regrets.tolist() == (1.0 - some).tolist()
        seen.append(set(some.tolist()))
        return float(np.median(some))

    (found,) = try_promises(
        confidences,
        1.0 - confidences,
        confidences > 0.5,
        confidences >= 0.0,
        threshold,
        alphas=(0.2,),
        resplits=20,
    )
    assert all(len(half) == 50 for half in seen)
    assert len({tuple(sorted(half)) for half in seen}) == 20
    assert found.routed == pytest.approx(0.5, abs=0.05)
    assert found.routed_in_domain > 0.9
