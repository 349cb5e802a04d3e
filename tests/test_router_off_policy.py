"""Estimates from a log against a world whose truth is known, and against sums by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from logged_rows import AB, BETTER, WORLD, A, B, row

from router.draw import Draw, propensity
from router.intervals import Interval
from router.off_policy import Appraisal, appraise, effective
from router.reward_model import cross_fitted, describe, fit, predict

SEEDS = 150
NAMES = ("inverse_propensity", "self_normalised", "doubly_robust")


@pytest.fixture(scope="module")
def appraisals() -> list[Appraisal]:
    """One appraisal of the better router for each seed, from 800 rows at a rate of 0.3."""
    return [appraise(*WORLD.log(800, 0.3, seed, BETTER), 200) for seed in range(SEEDS)]


def held(found: Interval | None, truth: float) -> bool:
    assert found is not None
    return found.low <= truth <= found.high


def values(appraisals: list[Appraisal], name: str) -> np.ndarray:
    return np.array([getattr(found, name).value for found in appraisals])


@pytest.mark.parametrize("name", NAMES)
def test_an_interval_holds_the_truth_as_often_as_it_says(
    appraisals: list[Appraisal], name: str
) -> None:
    truth = WORLD.value(BETTER)
    hits = sum(held(getattr(found, name), truth) for found in appraisals)
    # 95 % are promised; three standard errors of 150 coins are 0.053.
    assert hits / SEEDS >= 0.95 - 0.053


@pytest.mark.parametrize("name", NAMES)
def test_an_estimate_is_right_on_average(appraisals: list[Appraisal], name: str) -> None:
    found = values(appraisals, name)
    error = found.std(ddof=1) / np.sqrt(SEEDS)
    assert abs(found.mean() - WORLD.value(BETTER)) < 3.5 * error + 0.003


def test_every_estimate_is_nearer_than_the_mean_of_the_log(appraisals: list[Appraisal]) -> None:
    truth = WORLD.value(BETTER)
    naive = np.abs(values(appraisals, "logged") - truth).mean()
    errors = {name: np.abs(values(appraisals, name) - truth).mean() for name in NAMES}
    assert max(errors.values()) < naive / 2
    assert errors["doubly_robust"] < errors["inverse_propensity"]


def test_the_gain_is_that_of_the_better_router_over_what_acted(
    appraisals: list[Appraisal],
) -> None:
    chances = [
        {b: propensity(b, policy, gate, 0.3) for b in {*worth}}
        for policy, gate, worth in zip(WORLD.policy, WORLD.gate, WORLD.worth, strict=True)
    ]
    acted = sum(
        share * chance * worth[choice]
        for share, worth, choices in zip(WORLD.shares, WORLD.worth, chances, strict=True)
        for choice, chance in choices.items()
    )
    truth = WORLD.value(BETTER) - acted
    hits = sum(held(found.gain, truth) for found in appraisals)
    assert hits / SEEDS >= 0.95 - 0.053
    # So plain a gain must be seen.
    assert sum(found.gain is not None and found.gain.low > 0 for found in appraisals) > SEEDS / 2


def test_the_policy_itself_is_worth_what_it_is_worth() -> None:
    logged, wanted = WORLD.log(4000, 0.2, 7, WORLD.policy)
    found = appraise(logged, wanted, 300)
    truth = WORLD.value(WORLD.policy)
    for name in NAMES:
        assert held(getattr(found, name), truth), name
    assert found.effective > 2500
    assert found.unseen == 0.0
    assert found.warnings == ()


def test_estimates_are_the_sums_of_the_formulas() -> None:
    gate = {"a": 0.5, "b": 0.5}
    chosen = [(A, 1.0, 0.75), (B, -1.0, 0.25), (A, 0.5, 0.75), (B, 0.25, 0.25)]
    logged = [
        row(n, score, {c[0]: 1.0}, Draw(0.5, A, False, p), probabilities=gate)
        for n, (c, score, p) in enumerate(chosen)
    ]
    found = appraise(logged, [B, B, A, B], 50)
    weights = [0.0, 4.0, 4 / 3, 4.0]
    weighted = sum(w * r for w, (_, r, _) in zip(weights, chosen, strict=True))
    assert found.inverse_propensity is not None and found.self_normalised is not None
    assert found.inverse_propensity.value == pytest.approx(weighted / 4)
    assert found.self_normalised.value == pytest.approx(weighted / sum(weights))
    assert found.effective == pytest.approx(sum(weights) ** 2 / sum(w * w for w in weights))
    assert found.replay is not None
    assert found.replay.value == pytest.approx((-1.0 + 0.5 + 0.25) / 3)
    assert found.logged.value == pytest.approx(0.75 / 4)
    assert found.agreeing == 0.75


def test_without_chance_only_agreement_counts_and_it_is_said() -> None:
    logged = [row(n, 1.0 if n % 2 else -1.0) for n in range(20)]
    wanted = [("code",) if n % 4 == 1 else ("legal",) for n in range(20)]
    found = appraise(logged, wanted, 50)
    assert found.random == 0
    assert found.replay == Interval(1.0, 1.0, 1.0)
    assert (found.doubly_robust, found.inverse_propensity, found.gain) == (None, None, None)
    assert found.logged.value == 0.0
    (warning,) = found.warnings
    assert "router.explore was 0" in warning


def test_without_agreement_there_is_no_replay() -> None:
    found = appraise([row(0, 1.0)], [("legal",)], 20)
    assert found.replay is None


def test_rows_on_which_chance_had_no_say_are_not_weighed() -> None:
    logged, wanted = WORLD.log(500, 0.3, 1, BETTER)
    forced = [row(1000 + n, 1.0, {"b": 1.0}) for n in range(300)]
    alone = appraise(logged, wanted, 100)
    together = appraise([*logged, *forced], [*wanted, *[("b",)] * 300], 100)
    assert together.doubly_robust == alone.doubly_robust
    assert (together.scored, together.random) == (800, 500)


def test_rows_without_a_score_count_for_nothing() -> None:
    logged, wanted = WORLD.log(300, 0.3, 1, BETTER)
    unrated = [replace(one, opinion=None) for one in logged]
    assert appraise([*logged, *unrated], [*wanted, *wanted], 50) == appraise(logged, wanted, 50)
    with pytest.raises(ValueError, match="no decision with a score"):
        appraise(unrated, wanted)


def test_a_choice_that_the_log_cannot_have_seen_is_warned_of() -> None:
    logged, _ = WORLD.log(400, 0.1, 3, BETTER)
    found = appraise(logged, [("b", "c")] * 400, 50)
    assert found.unseen == 1.0
    assert any("100% of the rows" in warning for warning in found.warnings)
    assert found.self_normalised is None
    assert found.inverse_propensity is not None and found.inverse_propensity.value == 0.0


def test_thin_overlap_is_warned_of() -> None:
    logged, wanted = WORLD.log(200, 0.05, 3, BETTER)
    found = appraise(logged, wanted, 50)
    assert found.effective < 100
    assert any("overlap is thin" in warning for warning in found.warnings)


def test_a_session_counts_once_however_many_rows_it_has() -> None:
    logged, wanted = WORLD.log(400, 0.3, 5, BETTER)
    many = [
        replace(one, id=f"{one.id}-{turn}", key=one.key if session else f"{one.key} {turn}")
        for session in (True,)
        for one in logged
        for turn in range(9)
    ]
    apart = [replace(one, key=f"{one.key} {n}") for n, one in enumerate(many)]
    repeated = [choice for choice in wanted for _ in range(9)]
    width = {
        name: _width(appraise(rows, choices, 400))
        for name, rows, choices in (
            ("once", logged, wanted),
            ("sessions", many, repeated),
            ("apart", apart, repeated),
        )
    }
    assert width["sessions"] == pytest.approx(width["once"], rel=0.15)
    assert width["apart"] == pytest.approx(width["once"] / 3, rel=0.25)


def _width(found: Appraisal) -> float:
    assert found.self_normalised is not None
    return found.self_normalised.high - found.self_normalised.low


@pytest.mark.parametrize("rate", [0.0, 0.01, 0.3, 1.0])
@pytest.mark.parametrize("policy", [A, AB])
def test_propensities_of_all_choices_sum_to_one(rate: float, policy: tuple[str, ...]) -> None:
    gate = {"a": 0.6, "b": 0.3, "c": 0.1}
    choices = {policy, *((name,) for name in gate)}
    chances = [propensity(choice, policy, gate, rate) for choice in choices]
    assert sum(chances) == pytest.approx(1.0)
    assert propensity(("b", "a"), AB, gate, rate) == pytest.approx(1.0 - rate)


def test_effective_size_is_the_number_of_equal_weights() -> None:
    assert effective(np.full(7, 0.3)) == pytest.approx(7)
    assert effective(np.array([5.0, 0.0, 0.0])) == pytest.approx(1)
    assert effective(np.zeros(3)) == 0.0


def test_the_model_of_scores_is_ridge_regression() -> None:
    dice = np.random.default_rng(0)
    seen, scores = dice.normal(size=(40, 3)), dice.uniform(-1, 1, 40)
    # Augmented least squares: a row of sqrt(penalty) for each slope, none for the constant.
    rows = np.vstack([np.hstack([seen, np.ones((40, 1))]), np.eye(4)[:3]])
    wanted = np.linalg.lstsq(rows, np.append(scores, np.zeros(3)), rcond=None)[0]
    np.testing.assert_allclose(fit(seen, scores), wanted, atol=1e-9)
    assert np.abs(predict(np.array([9.0, 0, 0, 0]), seen)).max() == 1.0


def test_no_row_speaks_for_itself() -> None:
    seen = describe([A, B] * 10, [{"a": 0.5, "b": 0.5}] * 20, ["a", "b"])
    clusters = np.arange(20, dtype=np.int64)
    scores = np.where(np.arange(20) % 2 == 0, 0.5, -0.5)
    before, _ = cross_fitted(seen, seen, scores, clusters)
    scores[4] = -1.0
    after, _ = cross_fitted(seen, seen, scores, clusters)
    assert after[4] == before[4]
    assert after[5] != before[5]


def test_a_choice_of_several_is_described_by_equal_shares() -> None:
    seen = describe([AB, ("x",)], [{"a": 0.5, "b": 0.2}, {"a": 1.0}], ["a", "b"])
    np.testing.assert_allclose(seen, [[0.5, 0.5, 0.7], [0.0, 0.0, 0.0]])
