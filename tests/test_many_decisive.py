"""Where one expert is better beyond noise: printed tables, made-up answers of known truth."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from benchmarks.decisive import beyond_noise, hits, lead, two_sided

Floats = npt.NDArray[np.float64]
EXPERTS = 8


def answer(
    dice: np.random.Generator, tokens: int, gain: float = 0.0, memory: float = 0.0
) -> Floats:
    """Losses [experts, tokens]: what all share, and what each has besides.

    The first expert is better by `gain` nats a token; `memory` ties neighbouring tokens.
    """
    shared = dice.gamma(1.0, 2.0, tokens)
    own = dice.normal(0.0, 0.3, (EXPERTS, tokens))
    for place in range(1, tokens):
        own[:, place] = memory * own[:, place - 1] + np.sqrt(1 - memory**2) * own[:, place]
    losses = shared + own
    losses[0] -= gain
    return losses


@pytest.mark.parametrize(
    ("freedom", "t", "chance"),
    # From printed tables of Student's t, two-sided.
    [
        (1, 12.706, 0.05),
        (1, 63.657, 0.01),
        (2, 4.303, 0.05),
        (3, 5.841, 0.01),
        (4, 2.776, 0.05),
        (5, 4.032, 0.01),
        (10, 2.228, 0.05),
        (15, 2.947, 0.01),
        (30, 3.646, 0.001),
        (60, 2.660, 0.01),
    ],
)
def test_the_distribution_is_that_of_the_tables(freedom: int, t: float, chance: float) -> None:
    assert two_sided(t, freedom) == pytest.approx(chance, rel=2e-3)
    assert two_sided(0.0, freedom) == pytest.approx(1.0)


def test_a_clear_lead_is_told_with_its_expert() -> None:
    found = lead(answer(np.random.default_rng(0), 64, gain=1.0))
    assert found.best == 0
    assert found.chance < 1e-4


def test_a_second_expert_as_good_takes_the_lead_away() -> None:
    losses = answer(np.random.default_rng(0), 64, gain=1.0)
    losses[5] = losses[0]
    assert lead(losses).chance == 1.0


def test_an_answer_of_few_tokens_tells_nothing() -> None:
    losses = answer(np.random.default_rng(0), 64, gain=9.0)
    assert lead(losses[:, :7]).chance == 1.0
    assert lead(losses[:, :8]).chance < 0.05


def test_a_lead_of_the_same_size_on_every_token_is_certain() -> None:
    losses = np.tile(np.arange(1.0, 13.0), (3, 1))
    losses[2] -= 0.5
    found = lead(losses)
    assert (found.best, found.chance) == (2, 0.0)


@pytest.mark.parametrize("memory", [0.0, 0.3])
@pytest.mark.parametrize("tokens", [16, 64])
def test_experts_that_are_alike_seldom_seem_to_differ(tokens: int, memory: float) -> None:
    dice = np.random.default_rng(1)
    leads = [lead(answer(dice, tokens, memory=memory)) for _ in range(1500)]
    share = np.mean([found.chance < 0.05 for found in leads])
    # Three standard errors above 0.05.
    assert share < 0.05 + 3 * (0.05 * 0.95 / 1500) ** 0.5
    assert len({found.best for found in leads}) == EXPERTS


@pytest.mark.parametrize(("memory", "tokens"), [(0.0, 64), (0.0, 12), (0.2, 64)])
def test_two_that_are_alike_and_far_ahead_seem_to_differ_as_often_as_is_said(
    memory: float, tokens: int
) -> None:
    # The hardest case: the better of two equals was chosen by looking.
    dice = np.random.default_rng(2)
    found = []
    for _ in range(2000):
        losses = answer(dice, tokens, memory=memory)
        losses[2:] += 5.0
        found.append(lead(losses).chance < 0.05)
    error = (0.05 * 0.95 / 2000) ** 0.5
    assert 0.01 < np.mean(found) < 0.05 + 4 * error


def test_tokens_that_go_together_make_a_lead_less_sure() -> None:
    dice = np.random.default_rng(4)
    apart = answer(dice, 64, gain=0.3)[:2]
    together = np.repeat(answer(dice, 16, gain=0.3)[:2], 4, axis=1)
    plain = together[1] - together[0]
    t = plain.mean() / (plain.std(ddof=1) / 8.0)
    assert lead(together).chance > 2 * two_sided(float(t), 63)
    difference = apart[1] - apart[0]
    t = difference.mean() / (difference.std(ddof=1) / 8.0)
    assert lead(apart).chance == pytest.approx(two_sided(float(t), 63), abs=0.01)


def test_rows_of_known_truth_are_found_and_others_are_not() -> None:
    dice = np.random.default_rng(3)
    truth = np.arange(1000) % 2 == 0
    leads = [lead(answer(dice, 64, gain=0.25 if better else 0.0)) for better in truth]
    counted = beyond_noise([found.chance for found in leads], rate=0.05)
    wrong = [counted[n] and not (truth[n] and leads[n].best == 0) for n in range(1000)]
    assert counted[truth].mean() > 0.9
    assert sum(wrong) / counted.sum() <= 0.05
    strict = beyond_noise([found.chance for found in leads], rate=0.001)
    assert not (strict & ~counted).any()
    assert strict.sum() < counted.sum()


def test_false_verdicts_are_held_as_in_the_paper() -> None:
    # Benjamini and Hochberg 1995, section 3.2: at 0.05 the four smallest are rejected.
    chances = [
        0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240,
        0.4262, 0.5719, 0.6528, 0.7590, 1.0,
    ]  # fmt: skip
    shuffled = np.random.default_rng(0).permutation(15)
    decided = beyond_noise(np.asarray(chances)[shuffled].tolist(), 0.05)
    assert sorted(shuffled[decided].tolist()) == [0, 1, 2, 3]


def test_no_row_is_decided_where_nothing_stands_out() -> None:
    assert not beyond_noise([1.0, 1.0, 0.4]).any()
    assert beyond_noise([]).tolist() == []


@pytest.mark.parametrize(
    ("right", "rows", "low", "high"),
    # Newcombe 1998, table I, method 3.
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_the_interval_is_that_of_the_literature(
    right: int, rows: int, low: float, high: float
) -> None:
    found = hits(np.arange(rows) < right)
    assert (found.hits, found.rows) == (right, rows)
    assert found.value == right / rows
    assert found.low == pytest.approx(low, abs=5e-5)
    assert found.high == pytest.approx(high, abs=5e-5)


def test_of_no_rows_nothing_is_known() -> None:
    found = hits(np.zeros(0, dtype=np.bool_))
    assert (found.low, found.high) == (0.0, 1.0)
