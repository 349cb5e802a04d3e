"""What the gate is to learn: labels of people, and the experts' own losses where they are known.

A row whose answer every expert was measured on gets the soft target q = softmax(log p - l n / t),
with l the mean loss in nats per token, n the answer's tokens, `LONGEST` at most, and t the
temperature: the posterior of the experts after so much of the answer, softened by t (the signal of
Branch-Train-Merge, Li et al. 2022, arXiv 2208.03306, and of DEMix, Gururangan et al. 2021, arXiv
2108.05036, distilled into the gate). The prior p is the label with a doubt: experts that predict an
answer equally well leave it at its label, and losses far apart move it.
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
    """`doubt` is the share of the prior that is spread over all experts; `temperature` is t."""

    doubt: float = 0.02
    temperature: float = 4.0


def loss_targets(
    labels: Matrix, losses: Matrix, lengths: Sequence[int], settings: TargetSettings
) -> Matrix:
    """Soft targets [n, labels] of label shares and of losses, both [n, labels].

    Losses are in nats per token over `lengths` tokens.
    """
    tokens = np.minimum(np.asarray(lengths, dtype=np.float64), LONGEST)
    prior = (1.0 - settings.doubt) * labels + settings.doubt / labels.shape[1]
    return softmax(np.log(prior) - losses * tokens[:, None] / settings.temperature, 1.0)


def mixed_targets(
    labels: Matrix,
    texts: Sequence[str],
    names: Sequence[str],
    table: LossTable | None,
    settings: TargetSettings | None = None,
) -> Matrix:
    """Label shares [n, labels], in the rows that `table` knows their loss targets.

    Raises `LossError` for a label that the table has no losses of.
    """
    settings = settings or TargetSettings()
    mixed = labels.copy()
    if table is not None:
        losses = table.matrix(texts, names)
        known = ~np.isnan(losses).any(axis=1)
        lengths = table.lengths(texts)[known]
        mixed[known] = loss_targets(labels[known], losses[known], lengths.tolist(), settings)
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
