"""Experts that are asked the same: how alike their prototypes are, how often both are meant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from router.comparison import Estimate, wilson
from router.gate import Gate

Array = npt.NDArray[np.float64]

TWIN_COSINE = 0.8
"""Prototypes that are more alike than this are those of twins."""

TOGETHER = 0.5
"""So are experts of which, where one is meant, the other is meant at least so often."""

MEANT = 0.15
"""The probability from which on an expert is meant: the least share of a chosen set."""


@dataclass(frozen=True)
class Pair:
    """Two experts. Values that could not be measured are None.

    `together`: of the requests on which either is meant, the share on which both are; `requests`
    how many those are. `correlation` is that of their probabilities over all requests, `cosine`
    that of their prototypes, seen from the middle of the background.
    """

    one: str
    other: str
    requests: int
    together: Estimate | None
    correlation: float | None
    cosine: float | None

    @property
    def twins(self) -> bool:
        """Whether the two are asked the same, beyond the noise of few requests."""
        meant = self.together is not None and self.together.low >= TOGETHER
        return meant or (self.cosine is not None and self.cosine >= TWIN_COSINE)


def prototypes(gate: Gate) -> Array:
    """Return the prototypes [labels, d]: mean vectors, seen from the middle of the background.

    Of a trained label it is the mean of its rows in the background; zeros where there are none.
    Raises `GateError` for a gate without a background.
    """
    targets = gate.background_targets()
    vectors = gate.known_background().vectors.astype(np.float64)
    middle = vectors.mean(axis=0)
    mass = targets.sum(axis=0)
    means = (targets.T @ vectors) / np.maximum(mass, 1e-12)[:, None]
    means[mass == 0.0] = middle
    if gate.taught is not None:
        means[len(means) - len(gate.taught.names) :] = gate.taught.mean
    return np.asarray(means - middle, dtype=np.float64)


def cosines(vectors: Array) -> Array:
    """Return the cosines [n, n] of vectors [n, d]; 0 for a vector of zeros."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = vectors / np.where(lengths > 0.0, lengths, 1.0)
    return np.asarray(unit @ unit.T, dtype=np.float64)


def find_pairs(
    names: Sequence[str], probabilities: Array, likeness: Array, count: int
) -> list[Pair]:
    """Return the `count` pairs of experts that are most alike, the most alike first.

    `probabilities` [requests, names] are those of recent requests, `likeness` [names, names] the
    cosines of prototypes, NaN where one is not known.
    """
    meant = (probabilities >= MEANT).astype(np.float64)
    both = meant.T @ meant
    each = np.diag(both)
    either = each[:, None] + each[None, :] - both
    shares = both / np.maximum(either, 1.0)
    rank = np.maximum(shares, np.nan_to_num(likeness, nan=-1.0))
    rows, columns = np.triu_indices(len(names), k=1)
    order = np.argsort(-rank[rows, columns], kind="stable")[:count]
    moved = correlations(probabilities)
    return [
        Pair(
            one=names[one],
            other=names[other],
            requests=int(either[one, other]),
            together=wilson(int(both[one, other]), int(either[one, other]))
            if either[one, other]
            else None,
            correlation=_number(moved[one, other]),
            cosine=_number(likeness[one, other]),
        )
        for one, other in zip(rows[order].tolist(), columns[order].tolist(), strict=True)
    ]


def correlations(columns: Array) -> Array:
    """Return Pearson's correlations [n, n] of columns [rows, n]; NaN for one that never changes."""
    if len(columns) < 2:
        return np.full((columns.shape[1], columns.shape[1]), np.nan)
    centred = columns - columns.mean(axis=0)
    lengths = np.sqrt((centred**2).sum(axis=0))
    still = lengths < 1e-9
    unit = centred / np.where(still, 1.0, lengths)
    found = np.asarray(unit.T @ unit, dtype=np.float64)
    found[still, :] = np.nan
    found[:, still] = np.nan
    return found


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
