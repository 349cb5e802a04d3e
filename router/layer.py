"""A linear layer over joined features, quick for one prompt however many units there are."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]

MANY, FEW = 64, 4  # From so many units on, the zeros of few rows are left out of the product.


class Layer:
    """`weight` [units, features] and `bias` [units]; of features most behind `dense` are 0."""

    def __init__(self, weight: Array, bias: Array, dense: int) -> None:
        self._weight, self._bias, self._dense = weight, bias, dense

    def logits(self, features: Array) -> Array:
        """Return the products [..., units] of features [..., features]."""
        if len(self._weight) < MANY or features.size > FEW * self._weight.shape[1]:
            return features @ self._weight.T + self._bias
        dense, rows = self._dense, np.atleast_2d(features)
        found = rows[:, :dense] @ self._columns[:dense] + self._bias
        for row, logits in zip(rows[:, dense:], found, strict=True):
            used = np.flatnonzero(row)
            logits += row[used] @ self._columns[dense:][used]
        return found.reshape(*features.shape[:-1], -1)

    @cached_property
    def _columns(self) -> Array:
        return np.ascontiguousarray(self._weight.T)
