"""Mixture, truncation and draw against plain numpy and against statistics."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch

from experts.generation import Sampling
from experts.sampling import choose_token, mix, top_tokens, truncated, uniform

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


@pytest.mark.parametrize("temperature", [0.2, 0.7, 1.0, 1.9])
@pytest.mark.parametrize("top_p", [1e-9, 0.1, 0.5, 0.9, 0.999, 1.0])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_truncation_is_the_smallest_nucleus(temperature: float, top_p: float, seed: int) -> None:
    logps = distribution(seed)
    probabilities, ids = truncated(logps, temperature, top_p)
    truth = nucleus(logps, temperature, top_p)
    assert ids.tolist() == list(truth)
    assert probabilities.tolist() == pytest.approx(list(truth.values()), abs=1e-12)
    assert float(probabilities.sum()) == pytest.approx(1, abs=1e-12)


def test_a_set_that_just_reaches_top_p_takes_no_further_token() -> None:
    logps = torch.tensor([0.25, 0.5, 0.125, 0.125]).log()
    assert truncated(logps, 1.0, 0.75)[1].tolist() == [1, 0]
    assert truncated(logps, 1.0, 0.7501)[1].tolist() == [1, 0, 2]


def test_equal_tokens_stay_in_the_order_of_their_ids() -> None:
    probabilities, ids = truncated(torch.full((8,), -math.log(8)), 1.0, 0.5)
    assert ids.tolist() == [0, 1, 2, 3]
    assert probabilities.tolist() == [0.25] * 4


@pytest.mark.parametrize("temperature", [1e-3, 1e-300, 5e-324])
def test_the_smallest_temperature_is_greedy(temperature: float) -> None:
    logps = distribution(5)
    probabilities, ids = truncated(logps, temperature, 1.0)
    assert int(ids[0]) == int(logps.argmax())
    assert float(probabilities[0]) == pytest.approx(1)
    sampling = Sampling(1, temperature=temperature, top_p=0.9)
    assert choose_token(logps, sampling, seed=1, position=1) == int(logps.argmax())


def test_greedy_takes_the_lowest_id_among_equals() -> None:
    logps = torch.tensor([-3.0, -1.0, -2.0, -1.0])
    assert choose_token(logps, Sampling(1), seed=9, position=9) == 1


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
    tokens = [choose_token(logps, sampling, seed, position) for seed, position in where]
    truth = nucleus(logps, temperature, top_p)
    assert set(tokens) <= set(truth)
    counts = np.array([tokens.count(token) for token in truth], dtype=np.float64)
    expected = np.array(list(truth.values())) * draws
    assert chi_square(counts, expected) > 0.001


def test_the_chi_square_test_sees_a_wrong_distribution() -> None:
    expected = np.full(10, 400.0)
    assert chi_square(expected + np.array([60.0, -60.0] * 5), expected) < 0.001
    assert chi_square(expected + np.array([20.0, -20.0] * 5), expected) > 0.05


def test_uniform_is_even_within_its_range_and_a_function_of_its_arguments() -> None:
    found = np.array([uniform(seed, position) for seed in range(50) for position in range(200)])
    assert found.min() >= 0 and found.max() < 1
    assert len(set(found.tolist())) == len(found)
    counts = np.histogram(found, bins=20, range=(0, 1))[0].astype(np.float64)
    assert chi_square(counts, np.full(20, len(found) / 20)) > 0.001
    neighbours = np.corrcoef(found[:-1], found[1:])[0, 1]
    assert abs(neighbours) < 0.04
    assert uniform(7, 12) == uniform(7, 12)
    assert uniform(1, 11) != uniform(11, 1) != uniform(111, 0)


def test_uniform_never_changes_between_versions() -> None:
    # Digests by coreutils: printf '0:0' | b2sum -l 64
    assert uniform(0, 0) == (0xD56C9C7E6769D062 >> 11) / 2**53
    assert uniform(2**63, 5) == (0x46CA19CB6DF85F02 >> 11) / 2**53


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
