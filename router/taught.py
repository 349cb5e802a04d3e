"""The experts that were taught to a gate after its training, each by a prototype of its own.

Each has log odds ℓ against the background, which is all that the gate was trained on. The taught
experts and the background share the probability: with q₀ = 1 / (1 + Σ exp ℓ) a taught expert gets
q₀ · exp ℓ, and a trained label q₀ times what it had. So what an expert takes, it takes from all
others in proportion; each prototype stands for itself, so that neither their order nor one that was
taken away again leaves a trace.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from router.calibration import Matrix
from router.prototypes import Prototype

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Taught:
    """`weight` [experts, d], `bias` [experts] and `mean` [experts, d] of the prototypes."""

    names: tuple[str, ...]
    weight: Vectors
    bias: Vectors
    mean: Vectors

    def logits(self, vectors: npt.NDArray[Any]) -> Vectors:
        """Return the log odds [..., experts] of sentence vectors [..., d]."""
        return np.asarray(vectors @ self.weight.T + self.bias, dtype=np.float32)

    def join(self, shares: Matrix, odds: npt.NDArray[Any]) -> Matrix:
        """Return the probabilities [..., labels + experts] beside those of the trained labels.

        `shares` [..., labels] are those, `odds` [..., experts] what `logits` gives.
        """
        logits = odds.astype(np.float64)
        # No power is above 1, so that nothing overflows.
        most = np.maximum(logits.max(axis=-1, keepdims=True), 0.0)
        powers, rest = np.exp(logits - most), np.exp(-most)
        total = powers.sum(axis=-1, keepdims=True) + rest
        return np.concatenate([shares * (rest / total), powers / total], axis=-1)

    def log_total(self, vectors: npt.NDArray[Any]) -> Matrix:
        """Return log(1 + Σ exp ℓ) [...]: what the probabilities were divided by."""
        logits = self.logits(vectors).astype(np.float64)
        nothing = np.zeros((*logits.shape[:-1], 1))
        joined = np.concatenate([nothing, logits], axis=-1)
        return np.asarray(np.logaddexp.reduce(joined, axis=-1), dtype=np.float64)

    def without(self, name: str) -> Taught | None:
        """Return the others; None where there are none."""
        kept = [place for place, other in enumerate(self.names) if other != name]
        if not kept:
            return None
        names = tuple(self.names[place] for place in kept)
        return Taught(names, self.weight[kept], self.bias[kept], self.mean[kept])

    def content(self) -> Iterator[bytes]:
        """Yield what the probabilities depend on, the names apart."""
        for array in (self.weight, self.bias):
            yield np.ascontiguousarray(array, dtype="<f4").tobytes()


def join_prototype(taught: Taught | None, name: str, prototype: Prototype) -> Taught:
    """Return the taught experts with one more behind them."""
    weight = prototype.weight.astype(np.float32)[None, :]
    bias = np.array([prototype.bias], dtype=np.float32)
    mean = prototype.mean.astype(np.float32)[None, :]
    if taught is None:
        return Taught((name,), weight, bias, mean)
    return Taught(
        (*taught.names, name),
        np.concatenate([taught.weight, weight]),
        np.concatenate([taught.bias, bias]),
        np.concatenate([taught.mean, mean]),
    )
