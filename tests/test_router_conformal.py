"""Thresholds that promise rare regret: exact where it can be checked, kept where it is drawn."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from router.conformal import (
    marginal_threshold,
    promised_confidence,
    promises,
    risk_coverage,
    safe_threshold,
    upper_bound,
)
from router.gate import GateError

Array = npt.NDArray[np.float64]
EPSILON = 0.05


def population(count: int, seed: int, alpha: float = 0.1) -> tuple[Array, Array]:
    """Rows like those of a gate: mostly sure, wrong more often the less sure they are.

    All together are wrong a third more often than `alpha`.
    """
    rng = np.random.default_rng(seed)
    confidences = np.clip(rng.beta(6.0, 1.2, count), 0.2, 1.0)
    bad = rng.random(count) < true_risk(confidences, alpha)
    regrets = np.where(bad, EPSILON + rng.exponential(0.3, count) + 1e-6, 0.01)
    return confidences, regrets


def true_risk(confidences: Array, alpha: float = 0.1) -> Array:
    return np.asarray(np.minimum(1.0, 10.0 * alpha * (1.0 - confidences) ** 1.2 + alpha / 10.0))


def outcome(threshold: float | None, confidences: Array, regrets: Array) -> tuple[float, float]:
    """Coverage and the share of bad rows among the accepted."""
    if threshold is None:
        return 0.0, 0.0
    accepted = confidences >= threshold
    return float(accepted.mean()), float((regrets[accepted] > EPSILON).mean())


def chance_of_at_most(bad: int, total: int, share: Fraction) -> Fraction:
    """P(Binomial(total, share) <= bad), in exact arithmetic."""
    return sum(
        (math.comb(total, k) * share**k * (1 - share) ** (total - k) for k in range(bad + 1)),
        Fraction(0),
    )


@pytest.mark.parametrize("total", [1, 3, 20, 59, 400])
def test_without_a_bad_row_the_bound_is_that_of_the_closed_form(total: int) -> None:
    assert upper_bound(0, total, 0.05) == pytest.approx(1 - 0.05 ** (1 / total), abs=1e-9)


@pytest.mark.parametrize(
    ("bad", "total", "delta"), [(1, 10, 0.05), (3, 50, 0.05), (10, 60, 0.1), (40, 80, 0.01)]
)
def test_at_its_bound_the_rows_seen_are_as_unlikely_as_delta(
    bad: int, total: int, delta: float
) -> None:
    bound = upper_bound(bad, total, delta)
    assert float(chance_of_at_most(bad, total, Fraction(bound))) == pytest.approx(delta, rel=1e-6)
    assert upper_bound(total, total, delta) == 1.0


def slowly_found(bads: list[bool], alpha: Fraction, fresh: bool) -> int:
    """The number of rows accepted, by exact arithmetic and the definition, a row at a time."""
    delta = Fraction(3, 100)

    def passes(wrong: int, rank: int) -> bool:
        if not fresh:
            return chance_of_at_most(wrong, rank, alpha) <= delta
        breaking = math.floor(alpha * rank) + 1
        ways = sum(
            math.comb(wrong + breaking, k) * math.comb(2 * rank - wrong - breaking, rank - k)
            for k in range(wrong + 1)
        )
        return Fraction(ways, math.comb(2 * rank, rank)) <= delta

    accepted = 0
    for rank in range(1, len(bads) + 1):
        if passes(math.ceil(alpha * rank / 2), rank):
            if not passes(sum(bads[:rank]), rank):
                break
            accepted = rank
    return accepted


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("alpha", [Fraction(1, 10), Fraction(1, 5), Fraction(1, 2)])
def test_the_threshold_is_that_of_the_definition(alpha: Fraction, fresh: bool) -> None:
    accepted = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        # At most a hundred rows, where every rank is looked at.
        confidences = np.sort(rng.random(90))[::-1]
        bads = rng.random(90) < float(alpha) * np.linspace(0.0, 2.5, 90) ** 2
        found = safe_threshold(
            confidences, bads * 1.0, alpha=float(alpha), fresh=90 if fresh else None
        )
        count = 0 if found is None else int((confidences >= found).sum())
        assert count == slowly_found(bads.tolist(), alpha, fresh)
        accepted.append(count)
    assert alpha < 0.2 or max(accepted) > 20


def test_the_promise_about_the_probability_is_kept_as_often_as_said() -> None:
    """Against the true risk of the accepted region, integrated over a large population."""
    whole, _ = population(200_000, seed=1)
    kept, answered, drawn = 0, 0, 200
    for seed in range(drawn):
        confidences, regrets = population(600, seed=1000 + seed)
        threshold = safe_threshold(confidences, regrets, alpha=0.1, delta=0.1)
        accepted = whole[whole >= (1.0 if threshold is None else threshold)]
        kept += not len(accepted) or float(true_risk(accepted).mean()) <= 0.1
        answered += threshold is not None
    # Three standard deviations of a count below 0.9.
    assert kept / drawn >= 0.9 - 3 * math.sqrt(0.09 / drawn)
    assert answered > 0.9 * drawn


def resplits(alpha: float, count: int = 200) -> dict[str, tuple[float, float]]:
    """By method: the share of resplits that kept the promise on the other half, and coverage."""
    # The smaller the risk, the more rows it takes to tell.
    confidences, regrets = population(round(160 / alpha), 3, alpha)
    half = len(confidences) // 2
    rng = np.random.default_rng(4)
    found: dict[str, list[tuple[float, float]]] = {"marginal": [], "probability": [], "fresh": []}
    for _ in range(count):
        order = rng.permutation(len(confidences))
        here, there = order[:half], order[half:]
        known = confidences[here], regrets[here]
        thresholds = {
            "marginal": marginal_threshold(*known, alpha=alpha),
            "probability": safe_threshold(*known, alpha=alpha),
            "fresh": safe_threshold(*known, alpha=alpha, fresh=len(there)),
        }
        for name, threshold in thresholds.items():
            found[name].append(outcome(threshold, confidences[there], regrets[there]))
    return {
        name: (
            float(np.mean([risk <= alpha for _, risk in rows])),
            float(np.mean([coverage for coverage, _ in rows])),
        )
        for name, rows in found.items()
    }


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.2])
def test_of_three_methods_the_one_for_fresh_rows_keeps_its_promise_on_the_other_half(
    alpha: float,
) -> None:
    """The one that `promises` uses: the others answer more, and break the promise too often."""
    found = resplits(alpha)
    kept = {name: share for name, (share, _) in found.items()}
    assert kept["fresh"] >= 0.95
    assert kept["marginal"] < 0.6
    assert kept["probability"] < kept["fresh"]
    assert 0.4 < found["fresh"][1] <= found["probability"][1] <= found["marginal"][1]


def test_the_marginal_threshold_holds_on_average_over_all_rows() -> None:
    joint = []
    for seed in range(200):
        confidences, regrets = population(400, seed=seed)
        threshold = marginal_threshold(confidences[:200], regrets[:200], alpha=0.05)
        coverage, risk = outcome(threshold, confidences[200:], regrets[200:])
        joint.append(coverage * risk)
    error = np.std(joint) / math.sqrt(len(joint))
    assert np.mean(joint) <= 0.05 + 3 * error
    assert np.mean(joint) >= 0.05 - 0.02


def test_rows_of_equal_confidence_are_accepted_together_or_not_at_all() -> None:
    confidences = np.repeat([0.9, 0.6, 0.3], 100)
    regrets = np.concatenate([np.zeros(100), np.zeros(100), np.ones(100)])
    threshold = safe_threshold(confidences, regrets, alpha=0.1)
    assert threshold is not None and 0.3 < threshold <= 0.6
    curve = risk_coverage(confidences, regrets)
    assert curve.threshold.tolist() == [0.9, 0.6, 0.3]
    assert curve.coverage.tolist() == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert curve.risk.tolist() == pytest.approx([0.0, 0.0, 1 / 3])


def test_risk_and_coverage_are_those_that_are_counted() -> None:
    confidences, regrets = population(300, seed=8)
    curve = risk_coverage(confidences, regrets, EPSILON)
    for threshold, coverage, risk in zip(curve.threshold, curve.coverage, curve.risk, strict=True):
        assert (coverage, risk) == pytest.approx(outcome(threshold, confidences, regrets))


def test_rows_without_regret_are_all_accepted() -> None:
    assert safe_threshold(np.linspace(0.1, 0.9, 500), np.zeros(500), alpha=0.05) == 0.0


def test_too_few_rows_or_too_much_regret_promise_nothing() -> None:
    confidences = np.linspace(0.1, 0.9, 500)
    assert safe_threshold(confidences[:20], np.zeros(20), alpha=0.05) is None
    assert safe_threshold(confidences, np.ones(500), alpha=0.2) is None
    assert marginal_threshold(confidences, np.ones(500), alpha=0.0001) is None


def test_a_larger_risk_never_accepts_fewer_rows() -> None:
    confidences, regrets = population(2000, seed=5)
    found = [safe_threshold(confidences, regrets, alpha=a) for a in (0.05, 0.1, 0.2)]
    numbers = [1.0 if threshold is None else threshold for threshold in found]
    assert numbers == sorted(numbers, reverse=True)


@pytest.mark.parametrize(
    ("confidences", "regrets", "alpha", "words"),
    [
        ([], [], 0.1, "not empty"),
        ([0.5], [0.1, 0.2], 0.1, "equally long"),
        ([0.5, math.nan], [0.1, 0.2], 0.1, "NaN"),
        ([0.5, 0.6], [0.1, math.nan], 0.1, "NaN"),
        ([0.5], [0.1], 0.0, "alpha"),
        ([0.5], [0.1], 1.0, "alpha"),
    ],
)
def test_rows_that_cannot_be_judged_are_refused(
    confidences: list[float], regrets: list[float], alpha: float, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        safe_threshold(confidences, regrets, alpha=alpha)


def test_what_a_gate_promises_is_read_back_from_its_metadata() -> None:
    confidences, regrets = population(3000, seed=2)
    kept = json.loads(json.dumps({"conformal": promises(confidences, regrets)}))
    assert set(kept["conformal"]["thresholds"]) == {"0.05", "0.1", "0.2"}
    assert (kept["conformal"]["epsilon"], kept["conformal"]["delta"]) == (0.05, 0.03)
    wanted = safe_threshold(confidences, regrets, alpha=0.1, fresh=3000)
    assert promised_confidence(kept, 0.1) == wanted


@pytest.mark.parametrize(
    ("metadata", "risk", "words"),
    [
        ({}, 0.1, "max_risk 0.1: this gate holds no promises of risk"),
        ({"conformal": {"thresholds": {}}}, 0.1, "holds no promises"),
        ({"conformal": {"thresholds": {"0.05": 0.9, "0.1": 0.7}}}, 0.15, "promises 0.05, 0.1."),
        ({"conformal": {"thresholds": {"0.05": None, "0.1": 0.7}}}, 0.05, "promises 0.1."),
        ({"conformal": {"thresholds": {"0.05": None}}}, 0.05, "can promise nothing"),
        (
            {"conformal": {"rows": 120, "thresholds": {"0.05": None, "0.1": None}}},
            0.1,
            "on the 120 rows .* Remove max_risk and set min_confidence, or train another gate",
        ),
    ],
)
def test_a_risk_that_the_gate_does_not_promise_is_refused_with_those_it_does(
    metadata: dict[str, Any], risk: float, words: str
) -> None:
    with pytest.raises(GateError, match=words):
        promised_confidence(metadata, risk)


def test_where_nothing_is_promised_nobody_is_told_to_choose() -> None:
    metadata = {"conformal": {"rows": 9, "thresholds": {"0.05": None}}}
    with pytest.raises(GateError) as refused:
        promised_confidence(metadata, 0.05)
    assert "one of these" not in str(refused.value)
