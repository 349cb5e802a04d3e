"""A first stage that settles the sure cases by a text's surface alone: no encoder runs for them.

Scripts, n-grams and punctuation tell many prompts beyond doubt: a page of Russian, a function in
Python. A layer over them alone, with a temperature of its own, decides where its confidence reaches
a threshold; all other prompts go on to the encoder and the gate (a cascade, as in FrugalGPT, Chen
et al. 2023, arXiv 2305.05176, with stages of one router in place of language models).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from router.calibration import Matrix, log_sigmoid, softmax
from router.gate_error import GateError
from router.layer import Layer
from router.surface import SURFACE_DIMENSIONS

Array = npt.NDArray[np.float32]

LEAST_CONFIDENCE = 0.9
ALLOWED_LOSS = 0.002
"""Share of all rows that may be lost, net: those where the first stage alone is wrong less those
where it alone is right."""

LEAST_TRIED = 300
"""Prompts that must be kept apart for a threshold: among fewer, none lost says too little (among
so many it leaves, at 95 % confidence, 1 % open)."""


@dataclass(frozen=True, eq=False)
class FirstStage:
    """A layer `weight` [units, SURFACE_DIMENSIONS] and `bias` [units] over surfaces.

    It settles a text where its largest probability is at least `threshold`; above 1 it settles
    none. Raises `GateError` for arrays that do not fit together and numbers out of range.
    """

    weight: Array
    bias: Array
    temperature: float = 1.0
    threshold: float = 2.0

    def __post_init__(self) -> None:
        if self.bias.ndim != 1 or self.weight.shape != (len(self.bias), SURFACE_DIMENSIONS):
            raise GateError(
                f"first stage: weight {self.weight.shape} and bias {self.bias.shape} do not fit "
                f"{SURFACE_DIMENSIONS} surface features."
            )
        if not (np.isfinite(self.weight).all() and np.isfinite(self.bias).all()):
            raise GateError("first stage: weight and bias must be finite numbers.")
        for name, value in (("temperature", self.temperature), ("threshold", self.threshold)):
            if not (np.isfinite(value) and value > 0.0):
                raise GateError(f"first stage: {name} must be above 0; got {value!r}.")

    def scores(self, surfaces: Array) -> Matrix:
        """Return each unit's log-sigmoid score [..., units] of surfaces."""
        return log_sigmoid(self._layer.logits(surfaces))

    def probabilities(self, surfaces: Array) -> Matrix:
        """Return the calibrated probabilities [..., units] of surfaces."""
        return softmax(self.scores(surfaces), self.temperature)

    def settle(self, surface: Array) -> npt.NDArray[np.float64] | None:
        """Return the probabilities [units] of one text; None where the gate must be asked."""
        found = self.probabilities(surface)
        return found if found.max() >= self.threshold else None

    def content(self) -> Iterator[bytes]:
        """Yield what a decision depends on."""
        yield f"first\0{float(self.temperature).hex()}\0{float(self.threshold).hex()}".encode()
        for array in (self.weight, self.bias):
            yield np.ascontiguousarray(array, dtype="<f4").tobytes()

    @cached_property
    def _layer(self) -> Layer:
        return Layer(self.weight, self.bias, dense=0)


def safe_confidence(
    confidences: npt.NDArray[np.float64],
    right: npt.NDArray[np.bool_],
    gate_right: npt.NDArray[np.bool_],
    allowed: float = ALLOWED_LOSS,
) -> float:
    """Return the least confidence at which settling costs at most `allowed` of all rows' accuracy.

    All [n], of rows that neither was fitted to: the first stage's confidence, whether it is right,
    and whether the gate is. 2, which settles nothing, where no confidence will do.
    """
    order = np.argsort(-confidences, kind="stable")
    lost = np.cumsum(gate_right[order].astype(np.int64) - right[order].astype(np.int64))
    sorted_ = confidences[order]
    # Rows of one confidence are settled together or not at all.
    last = np.append(sorted_[1:] < sorted_[:-1], True)
    fits = (lost <= allowed * len(order)) & last & (sorted_ >= LEAST_CONFIDENCE)
    return float(sorted_[np.flatnonzero(fits)[-1]]) if fits.any() else 2.0
