"""From logits to a token: mixture, temperature, truncation, draw.

Everything works on the *combined* distribution: experts are mixed first, temperature and top-p
apply to the mixture (truncating each expert by itself would be another model).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from experts.dice import Dice
from experts.generation import Sampling

_FIRST_LOOK = 512


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


def choose_token(logps: torch.Tensor, sampling: Sampling, dice: Dice, position: int) -> int:
    """The next token of a distribution given as log-probabilities [vocabulary].

    Greedy takes the likeliest, the lowest id among equals.
    """
    if sampling.temperature == 0:
        token = int(logps.argmax())
    else:
        probabilities = tempered(logps, sampling.temperature, sampling.top_p)
        token = dice.pick(probabilities, position, "token")
    return token


def tempered(logps: torch.Tensor, temperature: float, top_p: float) -> torch.Tensor:
    """Probabilities at `temperature`, cut to the smallest set with mass ≥ `top_p`.

    Of equally likely tokens at the edge of that set, those with the lowest ids are in.

    Returns:
        float64 [vocabulary] on the CPU, 0 outside the set, summing to 1.
        (Holtzman et al. 2020, nucleus sampling, arXiv 1904.09751.)
    """
    wide = logps.double().cpu()
    # Shifted first, so that the likeliest token stays finite at the smallest temperature.
    probabilities = torch.softmax((wide - wide.max()) / temperature, dim=-1)
    if top_p < 1:
        values, ids = _nucleus(probabilities, top_p)
        probabilities = torch.zeros_like(probabilities)
        probabilities[ids] = values / values.sum()
    return probabilities


def _nucleus(probabilities: torch.Tensor, top_p: float) -> tuple[torch.Tensor, torch.Tensor]:
    # A full sort of the vocabulary takes milliseconds, and a nucleus is nearly always small.
    for count in (_FIRST_LOOK, len(probabilities)):
        size = min(count, len(probabilities))
        least = probabilities.topk(size).values[-1]
        ids = (probabilities >= least).nonzero()[:, 0]
        values, order = probabilities[ids].sort(descending=True, stable=True)
        before = values.cumsum(0) - values
        keep = int((before < top_p).sum())
        if keep < size or size == len(probabilities):
            break
    return values[:keep], ids[order[:keep]]


def top_tokens(logps: torch.Tensor, count: int) -> list[tuple[int, float]]:
    """The `count` likeliest tokens with their log-probabilities, likeliest first."""
    values, ids = logps.topk(count)
    return list(zip(ids.tolist(), values.tolist(), strict=True))
