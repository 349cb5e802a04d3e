"""Fitting of the gate's layer: mini-batches, Adam, cosine decay. NumPy, float32, one seed."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from router.calibration import log_sigmoid, softmax

Array = npt.NDArray[np.float32]

FIRST_MOMENT, SECOND_MOMENT, EPSILON = 0.9, 0.999, 1e-8


@dataclass(frozen=True)
class FitSettings:
    """How to fit: `unit_loss` is the part of the loss that each label's unit bears alone.

    The rest of the loss is the cross entropy of the shared probabilities. `balance_loss` keeps
    labels from dying out (Fedus et al. 2021, Switch, arXiv 2101.03961), `z_loss` keeps the scores
    from drifting (Zoph et al. 2022, ST-MoE, arXiv 2202.08906).
    """

    epochs: int = 24
    batch: int = 256
    learning_rate: float = 0.01
    weight_decay: float = 1e-4
    unit_loss: float = 0.2
    balance_loss: float = 0.01
    z_loss: float = 1e-3


@dataclass
class _Adam:
    parameter: Array
    first: Array = field(init=False)
    second: Array = field(init=False)
    steps: int = 0

    def __post_init__(self) -> None:
        self.first = np.zeros_like(self.parameter)
        self.second = np.zeros_like(self.parameter)

    def step(self, gradient: Array, rate: float) -> None:
        self.steps += 1
        self.first += (1.0 - FIRST_MOMENT) * (gradient - self.first)
        self.second += (1.0 - SECOND_MOMENT) * (gradient**2 - self.second)
        mean = self.first / (1.0 - FIRST_MOMENT**self.steps)
        spread = self.second / (1.0 - SECOND_MOMENT**self.steps)
        self.parameter -= np.float32(rate) * mean / (np.sqrt(spread) + EPSILON)


def fit(
    features: Array,
    targets: Array,
    row_weights: Array,
    settings: FitSettings,
    seed: int,
    progress: Callable[[str, int, int], None] | None = None,
) -> tuple[Array, Array]:
    """Return weight [labels, d] and bias [labels] for features [n, d] and label shares [n, labels].

    Deterministic for a seed. `progress` is called with ("train", epoch, epochs).
    """
    rng = np.random.default_rng(seed)
    weight = _Adam(np.zeros((targets.shape[1], features.shape[1]), dtype=np.float32))
    bias = _Adam(np.zeros(targets.shape[1], dtype=np.float32))
    starts = range(0, len(features), settings.batch)
    for epoch in range(settings.epochs):
        order = rng.permutation(len(features))
        for start in starts:
            rows = order[start : start + settings.batch]
            logits = features[rows] @ weight.parameter.T + bias.parameter
            slope = logit_gradient(logits, targets[rows], settings.unit_loss)
            slope *= row_weights[rows, None]
            slope += auxiliary_gradient(logits, settings.balance_loss, settings.z_loss)
            slope /= np.float32(len(rows))
            done = (weight.steps + 1) / (settings.epochs * len(starts))
            rate = settings.learning_rate * (1.0 + math.cos(math.pi * done)) / 2.0
            decay = np.float32(settings.weight_decay) * weight.parameter
            weight.step(slope.T @ features[rows] + decay, rate)
            bias.step(slope.sum(axis=0), rate)
        if progress is not None:
            progress("train", epoch + 1, settings.epochs)
    return weight.parameter, bias.parameter


def logit_gradient(logits: Array, targets: Array, unit_loss: float) -> Array:
    """Return the gradient [n, labels] of the summed loss with respect to the logits.

    The loss of a row is `unit_loss` times the binary cross entropies of its labels (a label with
    any share counts as true) plus the rest times the cross entropy of the shared probabilities.
    """
    scores = log_sigmoid(logits)
    units = np.exp(scores)
    alone = units - (targets > 0.0)
    shared = (softmax(scores) - targets) * (1.0 - units)
    return np.asarray(unit_loss * alone + (1.0 - unit_loss) * shared, dtype=np.float32)


def auxiliary_gradient(logits: Array, balance_loss: float, z_loss: float) -> Array:
    """Return the gradient [n, labels], times n, of the auxiliary losses of a batch.

    With shared probabilities p, the share f of rows that each label leads, and N labels:
    balance_loss · N · Σ f mean(p), in which f is taken as constant, and z_loss · mean(lse²), where
    lse is the logarithm of the summed scores.
    """
    scores = log_sigmoid(logits)
    shares = softmax(scores)
    labels = logits.shape[1]
    leads = np.bincount(shares.argmax(axis=1), minlength=labels) / len(logits)
    spread = shares * (leads - (shares @ leads)[:, None])
    total = np.logaddexp.reduce(scores, axis=1)
    drift = 2.0 * total[:, None] * shares
    inner = (1.0 - np.exp(scores)) * (balance_loss * labels * spread + z_loss * drift)
    return np.asarray(inner, dtype=np.float32)
