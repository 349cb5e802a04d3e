"""From logits to a token: mixture, temperature, truncation, draw.

Everything works on the *combined* distribution: experts are mixed first, temperature and top-p
apply to the mixture (truncating each expert by itself would be another model).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch

from experts.generation import Sampling


def mix(logits: torch.Tensor, weights: Sequence[float]) -> torch.Tensor:
    """Log-probabilities of the mixture Σ wᵢ softmax(logitsᵢ).

    Args:
        logits: [experts, vocabulary].
        weights: one per expert, summing to 1.

    Returns:
        [vocabulary], float32, natural logarithm.
    """
    logps = torch.log_softmax(logits.float(), dim=-1)
    if len(weights) > 1:
        log_weights = torch.tensor(weights, device=logps.device).log()
        mixed = torch.logsumexp(logps + log_weights[:, None], dim=0)
    else:
        mixed = logps[0]
    return mixed


def choose_token(logps: torch.Tensor, sampling: Sampling, seed: int, position: int) -> int:
    """The next token of a distribution given as log-probabilities [vocabulary].

    Greedy takes the likeliest, the lowest id among equals. Sampling inverts the cumulative
    distribution at a number derived from (seed, position), so a replay gives the same text
    whatever else was in the batch.
    """
    if sampling.temperature == 0:
        token = int(logps.argmax())
    else:
        probabilities, ids = truncated(logps, sampling.temperature, sampling.top_p)
        cumulative = probabilities.cumsum(0)
        point = uniform(seed, position) * float(cumulative[-1])
        index = int(torch.searchsorted(cumulative, torch.tensor(point, dtype=cumulative.dtype)))
        token = int(ids[min(index, len(ids) - 1)])
    return token


def truncated(
    logps: torch.Tensor, temperature: float, top_p: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tempered probabilities, largest first, cut to the smallest set with mass ≥ `top_p`.

    Returns:
        (probabilities float64 [n], token ids [n]) on the CPU; the probabilities sum to 1.
        (Holtzman et al. 2020, nucleus sampling, arXiv 1904.09751.)
    """
    # Shifted first, so that the likeliest token stays finite at the smallest temperature.
    shifted = logps.double().cpu() - logps.max().double().cpu()
    tempered = torch.softmax(shifted / temperature, dim=-1)
    probabilities, ids = tempered.sort(descending=True, stable=True)
    if top_p < 1:
        before = probabilities.cumsum(0) - probabilities
        keep = int((before < top_p).sum())
        probabilities, ids = probabilities[:keep], ids[:keep]
        probabilities = probabilities / probabilities.sum()
    return probabilities, ids


def uniform(seed: int, position: int) -> float:
    """A number in [0, 1) with 53 random bits, a function of its arguments alone."""
    digest = hashlib.blake2b(f"{seed}:{position}".encode(), digest_size=8).digest()
    return float(int.from_bytes(digest, "big") >> 11) / float(1 << 53)


def top_tokens(logps: torch.Tensor, count: int) -> list[tuple[int, float]]:
    """The `count` likeliest tokens with their log-probabilities, likeliest first."""
    values, ids = logps.topk(count)
    return list(zip(ids.tolist(), values.tolist(), strict=True))
