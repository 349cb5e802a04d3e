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

    Units are those of the gate's layer; targets are label shares.
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


def choose_rows(unseen: int, fitted: int, seed: int) -> npt.NDArray[np.int64]:
    """Return the places of at most `ROWS` of so many rows, drawn at random.

    Those that took no part in fitting stand first among all rows and are taken first: a gate is
    surer of the others than it is of new ones.
    """
    dice = np.random.default_rng(seed)
    order = [dice.permutation(unseen), unseen + dice.permutation(fitted)]
    return np.concatenate(order)[:ROWS]


def make_background(
    vectors: npt.NDArray[np.float32], logits: npt.NDArray[Any], targets: Matrix
) -> Background:
    """Return the background of these rows: sentence vectors, the gate's logits, label shares."""
    return Background(
        vectors=vectors.astype(np.float16),
        logits=np.asarray(logits, dtype=np.float32),
        targets=targets.astype(np.float32),
    )
