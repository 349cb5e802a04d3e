"""Mixture, truncation and draw against plain numpy and against statistics."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch

from experts.dice import SeededDice
from experts.generation import Sampling
from experts.sampling import choose_token, mix, tempered, top_tokens

Floats = npt.NDArray[np.float64]


def distribution(seed: int, size: int = 60, spread: float = 2.0) -> torch.Tensor:
    logits = np.random.default_rng(seed).normal(0, spread, size)
    return torch.log_softmax(torch.tensor(logits, dtype=torch.float32), dim=-1)


def nucleus(logps: torch.Tensor, temperature: float, top_p: float) -> dict[int, float]:
    """Tokens are taken one by one, the likeliest first, until their mass reaches top_p."""
    scaled = logps.numpy().astype(np.float64) / temperature
    weights = np.exp(scaled - scaled.max())
    probabilities = weights / weights.sum()
    taken: dict[int, float] = {}
    for token in sorted(range(len(probabilities)), key=lambda t: (-probabilities[t], t)):
        if top_p < 1 and sum(taken.values()) >= top_p:
            break
        taken[token] = float(probabilities[token])
    return {token: p / sum(taken.values()) for token, p in taken.items()}


def chosen(probabilities: torch.Tensor) -> dict[int, float]:
    return {t: p for t, p in enumerate(probabilities.tolist()) if p > 0}


@pytest.mark.parametrize("temperature", [0.2, 0.7, 1.0, 1.9])
@pytest.mark.parametrize("top_p", [1e-9, 0.1, 0.5, 0.9, 0.999, 1.0])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_truncation_is_the_smallest_nucleus(temperature: float, top_p: float, seed: int) -> None:
    logps = distribution(seed)
    truth = nucleus(logps, temperature, top_p)
    assert chosen(tempered(logps, temperature, top_p)) == pytest.approx(truth, abs=1e-12)


@pytest.mark.parametrize("top_p", [0.3, 0.9, 0.9999])
def test_a_nucleus_wider_than_the_first_look_is_whole(top_p: float) -> None:
    logps = distribution(4, size=3000, spread=0.3)
    truth = nucleus(logps, 1.0, top_p)
    assert len(truth) > 512
    assert chosen(tempered(logps, 1.0, top_p)) == pytest.approx(truth, abs=1e-12)


def test_a_set_that_just_reaches_top_p_takes_no_further_token() -> None:
    logps = torch.tensor([0.25, 0.5, 0.125, 0.125]).log()
    assert list(chosen(tempered(logps, 1.0, 0.75))) == [0, 1]
    assert list(chosen(tempered(logps, 1.0, 0.7501))) == [0, 1, 2]


@pytest.mark.parametrize("size", [8, 4096])
def test_of_equal_tokens_the_lowest_ids_are_in(size: int) -> None:
    found = chosen(tempered(torch.full((size,), -math.log(size)), 1.0, 0.5))
    assert list(found) == list(range(size // 2))
    assert list(found.values()) == pytest.approx([2 / size] * (size // 2))


@pytest.mark.parametrize("temperature", [1e-3, 1e-300, 5e-324])
def test_the_smallest_temperature_is_greedy(temperature: float) -> None:
    logps = distribution(5)
    assert chosen(tempered(logps, temperature, 1.0)) == pytest.approx({int(logps.argmax()): 1.0})
    sampling = Sampling(1, temperature=temperature, top_p=0.9)
    assert choose_token(logps, sampling, SeededDice(1), position=1) == int(logps.argmax())


def test_greedy_takes_the_lowest_id_among_equals() -> None:
    logps = torch.tensor([-3.0, -1.0, -2.0, -1.0])
    assert choose_token(logps, Sampling(1), SeededDice(9), position=9) == 1


def chi_square(counts: Floats, expected: Floats) -> float:
    """Upper tail of the chi-square statistic, by the Wilson-Hilferty normal approximation."""
    degrees = len(counts) - 1
    statistic = float(((counts - expected) ** 2 / expected).sum())
    spread = 2 / (9 * degrees)
    z = ((statistic / degrees) ** (1 / 3) - (1 - spread)) / math.sqrt(spread)
    return math.erfc(z / math.sqrt(2)) / 2


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.7, 1.0), (1.0, 0.8), (1.5, 0.9)])
@pytest.mark.parametrize("vary", ["seed", "position"])
def test_draws_follow_the_truncated_distribution(
    temperature: float, top_p: float, vary: str
) -> None:
    draws = 4000
    logps = distribution(11, size=12, spread=1.0)
    sampling = Sampling(1, temperature=temperature, top_p=top_p)
    where = [(n, 3) if vary == "seed" else (3, n) for n in range(draws)]
    tokens = [choose_token(logps, sampling, SeededDice(s), position) for s, position in where]
    truth = nucleus(logps, temperature, top_p)
    assert set(tokens) <= set(truth)
    counts = np.array([tokens.count(token) for token in truth], dtype=np.float64)
    expected = np.array(list(truth.values())) * draws
    assert chi_square(counts, expected) > 0.001


def test_the_chi_square_test_sees_a_wrong_distribution() -> None:
    expected = np.full(10, 400.0)
    assert chi_square(expected + np.array([60.0, -60.0] * 5), expected) < 0.001
    assert chi_square(expected + np.array([20.0, -20.0] * 5), expected) > 0.05


def test_choices_are_functions_of_seed_position_and_use() -> None:
    even = torch.ones(1000, dtype=torch.float64)
    found = {
        (seed, position, use): SeededDice(seed).pick(even, position, use)
        for seed in (1, 11, 111)
        for position in range(40)
        for use in ("token", "expert")
    }
    assert found == {k: SeededDice(k[0]).pick(even, k[1], k[2]) for k in found}
    columns = [
        [v for k, v in found.items() if k[0] == s and k[2] == u]
        for s in (1, 11, 111)
        for u in ("token", "expert")
    ]
    matrix = np.corrcoef(np.array(columns))
    assert np.abs(matrix - np.eye(6)).max() < 0.5


def test_choices_never_change_between_versions() -> None:
    # Digests by coreutils: printf '0:0:token' | b2sum -l 64
    many = torch.ones(2**20, dtype=torch.float64)
    assert SeededDice(0).pick(many, 0, "token") == 0x9ABACC1CA8137E76 >> 44
    assert SeededDice(2**63).pick(many, 5, "expert") == 0x030208E07E1DB081 >> 44


def test_a_weight_of_zero_is_never_picked() -> None:
    weights = torch.tensor([0.0, 0.3, 0.0, 0.7, 0.0], dtype=torch.float64)
    assert {SeededDice(seed).pick(weights, 0, "token") for seed in range(300)} == {1, 3}


@pytest.mark.parametrize("probability", [0.0, 0.2, 0.9, 1.0, 3.0])
def test_acceptance_has_its_probability(probability: float) -> None:
    share = np.mean([SeededDice(seed).accepts(probability, 4) for seed in range(4000)])
    assert share == pytest.approx(min(probability, 1), abs=0.03)
    assert probability not in (0.0, 1.0) or share == probability


@pytest.mark.parametrize("weights", [(1.0,), (0.5, 0.5), (0.7, 0.2, 0.1), (1e-6, 1 - 1e-6)])
def test_a_mixture_is_the_weighted_sum_of_softmaxes(weights: tuple[float, ...]) -> None:
    rng = np.random.default_rng(4)
    logits = rng.normal(0, 6, (len(weights), 300))
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    truth = np.array(weights) @ (shifted / shifted.sum(axis=1, keepdims=True))
    mixed = mix(torch.tensor(logits, dtype=torch.float32), weights)
    assert mixed.dtype == torch.float32
    np.testing.assert_allclose(mixed.exp().numpy(), truth, atol=1e-6)


def test_an_expert_of_weight_zero_does_not_change_a_mixture() -> None:
    logits = torch.randn(3, 50, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(mix(logits, (0.6, 0.0, 0.4)), mix(logits[[0, 2]], (0.6, 0.4)))


def test_the_top_tokens_are_those_of_a_full_sort() -> None:
    logps = distribution(8)
    order = np.argsort(-logps.numpy(), kind="stable")[:5]
    assert top_tokens(logps, 5) == [(int(t), float(logps[t])) for t in order]
