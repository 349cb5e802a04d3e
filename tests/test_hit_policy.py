"""Serving by likeness: nearest questions, the learnt risk, and the bound on errors."""

from __future__ import annotations

import numpy as np
import pytest

from orchestrator.cache_config import SemanticCacheConfig
from orchestrator.hit_policy import HitPolicy
from orchestrator.hit_risk import SPENT, Allowance, HitRisk
from orchestrator.likeness import Kin, Vector


def unit(rng: np.random.Generator, *shape: int) -> Vector:
    values = rng.normal(size=shape).astype(np.float32)
    return np.asarray(values / np.linalg.norm(values, axis=-1, keepdims=True), np.float32)


def test_the_nearest_is_found_with_its_margin_and_its_neighbours() -> None:
    rng = np.random.default_rng(0)
    vectors, query = unit(rng, 40, 8), unit(rng, 8)
    senses = [str(number % 7) for number in range(40)]
    kin = Kin()
    for number, vector in enumerate(vectors):
        kin.add(100 + number, vector, senses[number], float(number % 2))
    kin.note("3", same=True)
    found = kin.likeness(query)
    assert found is not None
    similar = vectors @ query
    order = np.argsort(-similar)
    first = int(order[0])
    others = [similar[n] for n in range(40) if senses[n] != senses[first]]
    assert found.answer == 100 + first
    assert found.sense == senses[first]
    assert found.similarity == pytest.approx(similar[first])
    assert found.margin == pytest.approx(similar[first] - max(others))
    assert found.agreeing == sum(senses[n] == senses[first] for n in order[1:10])
    assert found.trust == pytest.approx((sum(n % 2 for n in order[:10]) + 0.5) / 11)
    assert (found.right, found.wrong) == (int(senses[first] == "3"), 0)
    assert 0.0 < found.vote < 1.0


def test_what_was_let_go_is_not_found() -> None:
    kin = Kin()
    assert kin.likeness(np.array([1.0, 0.0], np.float32)) is None
    kin.add(1, np.array([1.0, 0.0], np.float32), "x")
    kin.add(2, np.array([0.0, 1.0], np.float32), "y")
    kin.retain({2})
    found = kin.likeness(np.array([1.0, 0.0], np.float32))
    assert found is not None
    assert (found.answer, found.sense) == (2, "y")
    assert list(kin.ids) == [2]


def test_the_risk_is_that_of_a_penalised_logistic_regression() -> None:
    rng = np.random.default_rng(1)
    rows = np.column_stack([np.ones(300), rng.normal(size=300)])
    same = rng.random(300) < 1 / (1 + np.exp(-(0.5 + 2 * rows[:, 1])))

    def loss(weights: tuple[float, float]) -> float:
        signs = np.where(same, -1.0, 1.0)
        misfit = np.logaddexp(0, signs * (rows @ np.array(weights))).sum()
        return float(misfit + 0.05 * np.square(weights).sum())

    grid = [(a, b) for a in np.arange(0.0, 1.2, 0.02) for b in np.arange(1.2, 3.2, 0.02)]
    expected = np.array(min(grid, key=loss))
    risk = HitRisk()
    assert risk.risk([1.0, 0.0]) == 1.0
    risk.fit(rows.tolist(), same.tolist())
    row = np.array([1.0, 0.7])
    plain = 1 / (1 + np.exp(row @ expected))
    # The caution makes it larger, the less the more was seen.
    assert plain < risk.risk(row.tolist()) < plain + 0.08


def test_the_allowance_is_the_largest_that_keeps_the_sum() -> None:
    rng = np.random.default_rng(2)
    risks = rng.random(500)
    allowance = Allowance(0.02)
    for risk in risks:
        allowance.note(float(risk))
    ordered = np.sort(risks)
    count = max(n for n in range(500) if ordered[:n].sum() <= SPENT * 0.02 * 500)
    assert allowance.limit == pytest.approx(ordered[count - 1])


def test_nothing_is_allowed_before_much_was_seen() -> None:
    allowance = Allowance(0.02)
    for _ in range(99):
        allowance.note(0.0)
    assert allowance.limit < 0.0


@pytest.mark.parametrize("seed", range(5))
def test_the_share_of_wrong_answers_stays_below_the_bound(seed: int) -> None:
    # Half of the questions vary around forty centres, half look like them and are all different.
    rng = np.random.default_rng(seed)
    centres = unit(rng, 40, 32)
    policy = HitPolicy(SemanticCacheConfig(enabled=True, max_error=0.02), rng.random)
    kin, hits, wrong = Kin(), 0, 0
    for number in range(2500):
        centre = int(rng.integers(40))
        strange = rng.random() < 0.5
        spread = 0.6 if strange else 0.5
        vector = centres[centre] + spread * unit(rng, 32)
        vector = (vector / np.linalg.norm(vector)).astype(np.float32)
        sense = f"only {number}" if strange and centre < 20 else str(centre)
        verdict = policy.decide(kin.likeness(vector))
        if verdict is None:
            kin.add(number, vector, sense)
        elif verdict.serves:
            hits, wrong = hits + 1, wrong + (verdict.likeness.sense != sense)
        else:
            same = verdict.likeness.sense == sense
            features = verdict.likeness.features()
            policy.learn(features, same=same)
            kin.note(verdict.likeness.sense, same=same)
            kin.add(number, vector, sense, float(same))
    assert hits > 500
    assert wrong <= 0.02 * 2500


def test_a_share_of_what_could_be_served_is_compared() -> None:
    drawn = [0.5]
    settings = SemanticCacheConfig(enabled=True, max_error=0.4, audit=0.05, learn_from=10)
    policy, kin = HitPolicy(settings, lambda: drawn[0]), Kin()
    kin.add(1, np.array([1.0, 0.0], np.float32), "x")
    likeness = kin.likeness(np.array([1.0, 0.0], np.float32))
    far = kin.likeness(np.array([0.6, 0.8], np.float32))
    assert likeness is not None and far is not None
    for _ in range(200):
        policy.learn(likeness.features(), same=True)
        policy.learn(far.features(), same=False)
        policy.decide(likeness)
    for draw, serves in ((0.04, False), (0.06, True)):
        drawn[0] = draw
        verdict = policy.decide(likeness)
        assert verdict is not None
        assert verdict.serves is serves
