"""Probabilities that mean what they say: sigmoid, softmax, temperature, and how far off they are.

Targets are label shares [n, labels] that sum to 1 a row: one-hot, or 0.5 and 0.5 for a prompt
that belongs to two experts.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float64]

TEMPERATURES = (0.2, 10.0)


def log_sigmoid(logits: npt.NDArray[np.floating[Any]]) -> Matrix:
    """Return log(1 / (1 + exp(-logits))), finite for finite logits."""
    return np.asarray(-np.logaddexp(0.0, -logits.astype(np.float64)), dtype=np.float64)


def softmax(scores: Matrix, temperature: float = 1.0) -> Matrix:
    """Return probabilities along the last axis, in proportion to exp(score / temperature)."""
    scaled = scores / temperature
    powers = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True), dtype=np.float64)


def negative_log_likelihood(probabilities: Matrix, targets: Matrix) -> float:
    """Return the mean cross entropy in nats of the targets under the probabilities."""
    logs = np.log(np.clip(probabilities, 1e-12, None))
    return float(-(targets * logs).sum(axis=1).mean())


def fit_temperature(scores: Matrix, targets: Matrix) -> float:
    """Return the temperature within `TEMPERATURES` with the least cross entropy.

    Golden-section search over its logarithm; the cross entropy has a single minimum there.
    """
    low, high = (math.log(bound) for bound in TEMPERATURES)
    ratio = (math.sqrt(5.0) - 1.0) / 2.0
    while high - low > 1e-4:
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        if _loss(scores, targets, left) < _loss(scores, targets, right):
            high = right
        else:
            low = left
    return math.exp((low + high) / 2.0)


def _loss(scores: Matrix, targets: Matrix, log_temperature: float) -> float:
    return negative_log_likelihood(softmax(scores, math.exp(log_temperature)), targets)


def calibration_error(probabilities: Matrix, targets: Matrix, bins: int = 15) -> float:
    """Return the expected calibration error (ECE) over bins of equal mass.

    A row's confidence is its largest probability, and it is right by the target share of that
    label (0.5 where the prompt belongs to two).
    """
    confidence = probabilities.max(axis=1)
    right = np.take_along_axis(targets, probabilities.argmax(axis=1)[:, None], axis=1)[:, 0]
    order = np.argsort(confidence, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    gaps = [abs(confidence[part].mean() - right[part].mean()) * len(part) for part in parts]
    return float(sum(gaps) / len(confidence))
