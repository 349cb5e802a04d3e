"""What the gate is to learn: labels of people, and the experts' own losses where they are known.

A row whose answer every expert was measured on gets the soft target q = softmax(−ℓ n / τ), with ℓ
the mean loss in nats per token and n the answer's tokens, `LONGEST` at most: the posterior of the
experts after so much of the answer, softened by τ (the signal of Branch-Train-Merge, Li et al.
2022, arXiv 2208.03306, and of DEMix, Gururangan et al. 2021, arXiv 2108.05036, distilled into the
gate).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from router.calibration import Matrix, softmax
from router.losses import LossTable

LONGEST = 32


@dataclass(frozen=True)
class TargetSettings:
    """`share` of the target comes from the losses where they are known, the rest from the labels;
    `temperature` is τ."""

    share: float = 0.3
    temperature: float = 4.0


def loss_targets(losses: Matrix, lengths: Sequence[int], temperature: float) -> Matrix:
    """Soft targets [n, labels] of losses [n, labels] in nats per token over `lengths` tokens."""
    tokens = np.minimum(np.asarray(lengths, dtype=np.float64), LONGEST)
    return softmax(-losses * tokens[:, None], temperature)


def mixed_targets(
    labels: Matrix,
    texts: Sequence[str],
    names: Sequence[str],
    table: LossTable | None,
    settings: TargetSettings | None = None,
) -> Matrix:
    """Label shares [n, labels], mixed with the loss targets of the rows that `table` knows.

    Raises `LossError` for a label that the table has no losses of.
    """
    settings = settings or TargetSettings()
    mixed = labels.copy()
    if table is not None:
        losses = table.matrix(texts, names)
        known = ~np.isnan(losses).any(axis=1)
        lengths = table.lengths(texts)[known]
        soft = loss_targets(losses[known], lengths.tolist(), settings.temperature)
        mixed[known] = (1.0 - settings.share) * labels[known] + settings.share * soft
    return mixed


def collapse(probabilities: Matrix) -> dict[str, float]:
    """How evenly rows [n, labels] are led: each is 1 where all labels lead equally often.

    `entropy` of the leads, relative to the even one; `least`, the share of the rarest lead times
    the number of labels: 0 is a label that never leads.
    """
    count = probabilities.shape[1]
    leads = np.bincount(probabilities.argmax(axis=1), minlength=count) / len(probabilities)
    held = leads[leads > 0]
    entropy = float(-(held * np.log(held)).sum() / np.log(count))
    return {"entropy": entropy, "least": float(leads.min() * count)}
