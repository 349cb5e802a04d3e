"""A first stage that settles the sure cases by a text's surface alone: no encoder runs for them.

Scripts, n-grams and punctuation tell many prompts beyond doubt: a page of Russian, a function in
Python. A logistic layer over them alone, with a temperature of its own, decides where its
confidence reaches a threshold; all other prompts go on to the encoder and the gate (a cascade, as
in FrugalGPT, Chen et al. 2023, arXiv 2305.05176, with stages of one router in place of language
models).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from router.calibration import Matrix, log_sigmoid, softmax
from router.parts import strongest
from router.surface import SURFACE_DIMENSIONS

Array = npt.NDArray[np.float32]

LEAST_CONFIDENCE = 0.9
ALLOWED_LOSS = 0.002
"""Share of all rows on which the cascade may be wrong where the gate would have been right."""


@dataclass(frozen=True, eq=False)
class FirstStage:
    """A layer `weight` [labels, SURFACE_DIMENSIONS] and `bias` [labels] over surfaces.

    It settles a prompt where its largest probability is at least `threshold`; above 1 it settles
    none. Raises `ValueError` for arrays that do not fit together.
    """

    weight: Array
    bias: Array
    temperature: float = 1.0
    threshold: float = 2.0

    def __post_init__(self) -> None:
        if self.weight.shape != (len(self.bias), SURFACE_DIMENSIONS):
            raise ValueError(
                f"first stage: weight {self.weight.shape} does not fit {len(self.bias)} labels and "
                f"{SURFACE_DIMENSIONS} surface features."
            )

    def probabilities(
        self, surfaces: Array, starts: Sequence[int], generalist: Sequence[int]
    ) -> Matrix:
        """Return the probabilities [n, labels] of texts whose parts have these surfaces [m, s]."""
        scores = log_sigmoid(surfaces @ self.weight.T + self.bias)
        return softmax(strongest(scores, starts, generalist), self.temperature)

    def settle(self, surfaces: Array, generalist: Sequence[int]) -> npt.NDArray[np.float64] | None:
        """Return the probabilities [labels] of one text; None where the gate must be asked."""
        found = self.probabilities(surfaces, [0], generalist)[0]
        return found if found.max() >= self.threshold else None


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
