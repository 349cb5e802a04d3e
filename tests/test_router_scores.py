"""Every score against scikit-learn or a count by hand."""

import numpy as np
import pytest

from router.calibration import calibration_error
from router.intervals import Macro, bootstrap, mean_interval
from router.scores import (
    auroc,
    brier,
    confusion,
    expected_error,
    label_scores,
    macro_f1,
    reliability,
    risk_coverage,
    risk_curve,
)

LABELS = ["code", "legal", "general"]


def drawn(count: int, seed: int = 0) -> tuple[list[str], list[str]]:
    dice = np.random.default_rng(seed)
    truths = [str(name) for name in dice.choice(LABELS, count)]
    found = [name if dice.random() < 0.7 else str(dice.choice(LABELS)) for name in truths]
    return truths, found


def test_f1_precision_and_recall_are_those_of_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    truths, found = drawn(200)
    ours = label_scores(truths, found)
    theirs = metrics.precision_recall_fscore_support(truths, found, labels=LABELS, zero_division=0)
    for place, label in enumerate(LABELS):
        assert ours[label].precision == pytest.approx(theirs[0][place])
        assert ours[label].recall == pytest.approx(theirs[1][place])
        assert ours[label].f1 == pytest.approx(theirs[2][place])
        assert ours[label].rows == theirs[3][place]
    assert macro_f1(truths, found) == pytest.approx(
        metrics.f1_score(truths, found, average="macro")
    )
    expected = metrics.confusion_matrix(truths, found, labels=LABELS)
    ours_counted = confusion(LABELS, truths, found)
    assert [[ours_counted[a][b] for b in LABELS] for a in LABELS] == expected.tolist()


def test_f1_of_a_label_that_is_never_found_is_0() -> None:
    scores = label_scores(["code", "code", "legal"], ["code", "code", "code"])
    assert (scores["legal"].precision, scores["legal"].recall, scores["legal"].f1) == (0, 0, 0)
    assert scores["code"].f1 == pytest.approx(2 * (2 / 3) / (2 / 3 + 1))
    assert macro_f1(["code", "code", "legal"], ["code", "code", "code"]) == pytest.approx(0.4)


def test_auroc_is_that_of_scikit_learn_with_and_without_ties() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    dice = np.random.default_rng(1)
    for digits in (1, 12):
        positive = np.round(dice.normal(1.0, 1.0, 80), digits)
        negative = np.round(dice.normal(0.0, 1.0, 130), digits)
        truth = [1] * 80 + [0] * 130
        expected = metrics.roc_auc_score(truth, np.concatenate([positive, negative]))
        assert auroc(positive, negative) == pytest.approx(expected)


def test_auroc_by_hand() -> None:
    assert auroc(np.array([3.0, 1.0]), np.array([2.0, 1.0])) == pytest.approx((1 + 1 + 0 + 0.5) / 4)
    with pytest.raises(ValueError, match="both sides"):
        auroc(np.array([]), np.array([1.0]))


def test_reliability_bins_have_equal_mass_and_the_error_is_their_weighted_gap() -> None:
    confidence = np.array([0.9, 0.8, 0.3, 0.2])
    right = np.array([1.0, 1.0, 0.0, 1.0])
    low, high = reliability(confidence, right, bins=2)
    assert (low.rows, low.confidence, low.right) == (2, pytest.approx(0.25), 0.5)
    assert (high.rows, high.confidence, high.right) == (2, pytest.approx(0.85), 1.0)
    assert expected_error([low, high]) == pytest.approx((0.25 + 0.15) / 2)


def test_the_expected_error_is_that_of_calibration() -> None:
    dice = np.random.default_rng(2)
    probabilities = dice.dirichlet(np.ones(4), 500)
    targets = np.eye(4)[dice.integers(4, size=500)]
    right = targets[np.arange(500), probabilities.argmax(axis=1)]
    bins = reliability(probabilities.max(axis=1), right)
    assert expected_error(bins) == pytest.approx(calibration_error(probabilities, targets))


def test_the_brier_score_is_0_for_the_truth_and_2_for_its_opposite() -> None:
    truth = np.eye(2)[[0, 1, 0]]
    assert brier(truth, truth) == 0.0
    assert brier(1.0 - truth, truth) == 2.0


def test_risk_rises_as_less_confident_rows_are_let_in() -> None:
    confidence = np.array([0.5, 0.9, 0.5, 0.7])
    bad = np.array([True, False, False, True])
    coverage, risk = risk_coverage(confidence, bad)
    assert coverage.tolist() == [0.25, 0.5, 1.0]
    assert risk.tolist() == [0.0, 0.5, 0.5]
    curve = risk_curve(confidence, bad)
    assert curve.area == pytest.approx(0.25 * 0.0 + 0.25 * 0.5 + 0.5 * 0.5)


def test_the_interval_of_a_mean_covers_the_truth_about_95_times_in_100() -> None:
    dice = np.random.default_rng(3)
    covered = 0
    for seed in range(200):
        values = dice.exponential(2.0, 120)
        found = mean_interval(values, ["a"] * 120, resamples=200, seed=seed)
        covered += found.low <= 2.0 <= found.high
    assert 178 <= covered <= 199


def test_a_resample_keeps_the_size_of_every_stratum_and_a_seed_repeats_it() -> None:
    strata = ["a"] * 3 + ["b"] * 7
    seen: list[list[int]] = []

    def statistic(rows: np.ndarray[tuple[int], np.dtype[np.int64]]) -> float:
        seen.append(rows.tolist())
        return float(len(rows))

    first = bootstrap(statistic, strata, resamples=20, seed=5)
    assert all(sum(row < 3 for row in rows) == 3 and len(rows) == 10 for rows in seen)
    assert len({tuple(rows) for rows in seen}) > 10
    assert (first.value, first.low, first.high) == (10.0, 10.0, 10.0)
    again: list[list[int]] = seen.copy()
    seen.clear()
    bootstrap(statistic, strata, resamples=20, seed=5)
    assert seen == again


def test_a_macro_mean_weighs_small_strata_like_large_ones() -> None:
    macro = Macro(["a", "b", "b", "b"])
    values = np.array([1.0, 0.0, 0.0, 3.0])
    assert macro(values) == pytest.approx((1.0 + 1.0) / 2)
    assert macro.by_stratum(values) == {"a": 1.0, "b": 1.0}
    assert macro(values, np.array([0, 0, 3])) == pytest.approx((1.0 + 3.0) / 2)
