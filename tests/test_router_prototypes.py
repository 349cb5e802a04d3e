"""Prototypes against scikit-learn, and what they promise of rows that took no part in them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from router.prototypes import (
    Cloud,
    PrototypeError,
    calibrate,
    discriminant,
    fit_prototype,
    left_out,
    shrinkage,
)

Array = npt.NDArray[np.float64]


def cloud(rows: int, dimensions: int, seed: int, shift: float = 0.0) -> Array:
    """Correlated normal rows around `shift` in every dimension."""
    dice = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(dimensions, dimensions)) / dimensions**0.5
    return dice.normal(size=(rows, dimensions)) @ mixing + shift


@pytest.mark.parametrize("amount", [0.0, 0.1, 0.6, 1.0])
def test_the_discriminant_is_that_of_scikit_learn(amount: float) -> None:
    analysis = pytest.importorskip("sklearn.discriminant_analysis")
    ours, theirs = cloud(40, 12, 1, shift=0.7), cloud(300, 12, 2)
    weight, bias = discriminant(Cloud.of(ours), Cloud.of(theirs), amount)
    model = analysis.LinearDiscriminantAnalysis(solver="lsqr", shrinkage=amount)
    model.fit(np.concatenate([theirs, ours]), np.repeat((0, 1), (300, 40)))
    np.testing.assert_allclose(weight, model.coef_[0], rtol=1e-8)
    # scikit-learn adds the log odds of the classes' sizes.
    assert bias + np.log(40 / 300) == pytest.approx(model.intercept_[0], rel=1e-8)


@pytest.mark.parametrize(("rows", "dimensions"), [(30, 60), (500, 20), (25, 2)])
def test_the_shrinkage_is_that_of_scikit_learn(rows: int, dimensions: int) -> None:
    covariance = pytest.importorskip("sklearn.covariance")
    found = cloud(rows, dimensions, 3)
    centred = found - found.mean(axis=0)
    expected = covariance.ledoit_wolf_shrinkage(centred, assume_centered=True)
    assert shrinkage(centred) == pytest.approx(expected, rel=1e-9)


def test_one_direction_alone_is_shrunk_to_nothing() -> None:
    assert shrinkage(np.array([[1.0], [-1.0], [2.0], [-2.0]])) == 1.0


def test_platt_scaling_is_a_weighted_logistic_regression() -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    dice = np.random.default_rng(4)
    ours, theirs = dice.normal(3.0, 20.0, 30), dice.normal(-30.0, 20.0, 200)
    slope, bias = calibrate(ours, theirs, 0.25)
    # A row with target t is one row of class 1 that weighs t and one of class 0 that weighs 1 - t.
    scores = np.concatenate([ours, theirs])[:, None]
    targets = np.repeat((31 / 32, 1 / 202), (30, 200))
    weights = np.repeat((0.25 / 30, 0.75 / 200), (30, 200))
    model = linear.LogisticRegression(C=np.inf, tol=1e-10, max_iter=10_000)
    model.fit(
        np.concatenate([scores, scores]),
        np.repeat((1, 0), len(scores)),
        np.concatenate([weights * targets, weights * (1 - targets)]),
    )
    assert slope == pytest.approx(model.coef_[0, 0], rel=1e-3)
    assert bias == pytest.approx(model.intercept_[0], rel=1e-3)


def test_no_row_takes_part_in_its_own_score() -> None:
    ours, theirs = cloud(25, 8, 5, shift=0.5), cloud(80, 8, 6)
    found, others = left_out(ours, theirs, 0.2)
    for row in (0, 7, 24):
        rest = np.delete(ours, row, axis=0)
        weight, bias = discriminant(Cloud.of(rest), Cloud.of(theirs), 0.2)
        assert found[row] == pytest.approx(ours[row] @ weight + bias, rel=1e-9)
    for row in (0, 9, 79):
        apart = np.arange(80) % 8 == row % 8
        weight, bias = discriminant(Cloud.of(ours), Cloud.of(theirs[~apart]), 0.2)
        assert others[row] == pytest.approx(theirs[row] @ weight + bias, rel=1e-9)


def test_log_odds_hold_on_rows_that_were_never_seen() -> None:
    # More dimensions than examples: bare odds of the discriminant are far too sure here.
    gaps, bare = [], []
    for seed in range(6):
        ours = cloud(40, 60, 10 + seed, shift=0.12)
        theirs = cloud(400, 60, 30 + seed)
        prototype = fit_prototype(ours, theirs, share=0.5)
        fresh = np.concatenate([cloud(2000, 60, 50 + seed, shift=0.12), cloud(2000, 60, 70 + seed)])
        truth = np.repeat((1.0, 0.0), 2000)
        raw = discriminant(Cloud.of(ours), Cloud.of(theirs), 0.05)
        bare.append(gap(fresh @ raw[0] + raw[1], truth))
        gaps.append(gap(fresh @ prototype.weight + prototype.bias, truth))
    assert np.mean(gaps) < 0.07
    assert np.mean(gaps) < 0.6 * np.mean(bare)


def gap(logits: Array, truth: Array) -> float:
    """Mean distance of probability and share of truth, over ten bins of like probability."""
    found = 1.0 / (1.0 + np.exp(-logits))
    parts = np.array_split(np.argsort(found), 10)
    return float(np.mean([abs(found[part].mean() - truth[part].mean()) for part in parts]))


def test_rows_of_the_domain_in_the_background_are_not_held_against_it() -> None:
    inside = np.repeat((False, True, False), (200, 30, 200))
    found, wrong, reached, shunned = [], [], [], []
    for seed in range(10):
        ours, theirs = cloud(40, 60, 10 + seed, shift=0.4), cloud(400, 60, 30 + seed)
        own = cloud(30, 60, 90 + seed, shift=0.4)
        fresh = cloud(1000, 60, 50 + seed, shift=0.4)
        mixed = np.concatenate([theirs[:200], own, theirs[200:]])
        prototype = fit_prototype(ours, mixed, share=0.2)
        found.append(prototype.alike[inside].mean())
        wrong.append(prototype.alike[~inside].mean())
        reached.append((fresh @ prototype.weight + prototype.bias > 0).mean())
        slope, bias = calibrate(*left_out(ours, mixed, 0.1), 0.2)
        held = discriminant(Cloud.of(ours), Cloud.of(mixed), 0.1)
        shunned.append((slope * (fresh @ held[0] + held[1]) + bias > 0).mean())
        # A row that was left out has odds like any other.
        assert len(prototype.background) == 430
        assert (prototype.background[inside] > 0).mean() > 0.6
    assert np.mean(found) > 0.4 and max(wrong) <= 0.01
    assert np.mean(reached) > max(0.85, np.mean(shunned) + 0.1)


def test_a_background_without_the_domain_loses_no_rows() -> None:
    for seed in range(5):
        far = fit_prototype(cloud(40, 60, seed, shift=0.5), cloud(400, 60, 30 + seed), 0.2)
        assert not far.alike.any()
        # Too near to tell what is of the domain and what is a neighbour's.
        near = fit_prototype(cloud(40, 60, seed, shift=0.1), cloud(400, 60, 30 + seed), 0.2)
        assert not near.alike.any()


def test_a_larger_share_of_the_traffic_only_raises_the_odds() -> None:
    ours, theirs = cloud(30, 10, 7, shift=0.8), cloud(200, 10, 8)
    rows = cloud(50, 10, 9, shift=0.4)
    few, many = (fit_prototype(ours, theirs, share) for share in (0.05, 0.5))
    odds = [rows @ found.weight + found.bias for found in (few, many)]
    assert (odds[1] > odds[0]).mean() > 0.95


def test_too_few_examples_are_refused_with_the_reason() -> None:
    with pytest.raises(PrototypeError, match="19 examples are too few: give at least 20"):
        fit_prototype(cloud(19, 5, 1), cloud(100, 5, 2), 0.2)


def test_a_tiny_background_is_refused() -> None:
    with pytest.raises(PrototypeError, match="15 rows is too small"):
        fit_prototype(cloud(20, 5, 1), cloud(15, 5, 2), 0.2)


def test_examples_of_no_domain_are_refused() -> None:
    refused = 0
    for seed in range(10):
        # Drawn from the background itself, and from its two opposite ends.
        rows = cloud(40, 4, 100 + seed)
        ours = np.concatenate([rows, -rows])
        try:
            fit_prototype(ours, cloud(400, 4, 200 + seed), 0.2)
        except PrototypeError as error:
            assert "of no one domain" in str(error)
            refused += 1
    assert refused >= 5


def test_rows_without_any_spread_are_refused() -> None:
    with pytest.raises(PrototypeError, match="one and the same vector"):
        fit_prototype(np.ones((20, 3)), np.ones((40, 3)), 0.2)
