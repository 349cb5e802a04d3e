"""Prompts that a gate was trained for, as numbers: what is new is held against it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from router.calibration import Matrix

ROWS = 1024


@dataclass(frozen=True, eq=False)
class Background:
    """`vectors` [rows, d] (half precision), the gate's `logits` and the `targets` [rows, units].

    The rows took no part in fitting. Units are those of the gate's layer; targets are label shares.
    """

    vectors: npt.NDArray[np.float16]
    logits: npt.NDArray[np.float32]
    targets: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.vectors)

    def without(self, units: Sequence[int]) -> Background:
        """Return the rows to which none of these units is a right answer."""
        kept = ~(self.targets[:, list(units)] > 0.0).any(axis=1)
        return Background(self.vectors[kept], self.logits[kept], self.targets[kept])


def draw_background(
    vectors: npt.NDArray[np.float32], logits: npt.NDArray[Any], targets: Matrix, seed: int
) -> Background:
    """Return at most `ROWS` of these rows: sentence vectors, the gate's logits, label shares."""
    order = np.random.default_rng(seed).permutation(len(vectors))[:ROWS]
    return Background(
        vectors=vectors[order].astype(np.float16),
        logits=np.asarray(logits[order], dtype=np.float32),
        targets=targets[order].astype(np.float32),
    )
