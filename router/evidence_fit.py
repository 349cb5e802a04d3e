"""Slope and centre of retrieval evidence, fitted to labelled prompts.

A logistic regression with the gate's log odds as offset and one feature, the cosine above a centre:
the pair (slope, centre) with the least cross entropy, under a weak normal prior on the slope, so
that prompts which it separates do not make it infinitely sure. Two numbers are searched on a grid
that is refined twice: no seed, the same result on every run.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import numpy.typing as npt

from router.calibration import Matrix, negative_log_likelihood
from router.evidence import EvidenceError, Scale, raised_array

LEAST_ROWS = 20
FOLDS = 5
PRIOR_NATS = 20.0
"""Standard deviation of the prior on the slope, in nats per unit of cosine."""

_SLOPES = (0.0, 1.0, 2.0, 4.0, 6.0, 8.0, 12.0, 16.0, 20.0, 24.0, 28.0, 32.0, 40.0)
_CENTRES = tuple(round(0.05 * step, 2) for step in range(20))
_STEPS = ((1.0, 0.01), (0.25, 0.0025))
_REACH = 4

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Sightings:
    """n prompts as gate and search see them; columns are experts, in one order.

    `probabilities` [n, experts] are the gate's, `similarities` [n, experts] the best cosines of
    each expert's collections (-1 where it has none), `targets` [n, experts] label shares.
    """

    probabilities: Matrix
    similarities: Matrix
    targets: Matrix

    def at(self, rows: Indices) -> Sightings:
        """Return these rows alone."""
        return Sightings(self.probabilities[rows], self.similarities[rows], self.targets[rows])

    def raised(self, scale: Scale) -> Matrix:
        """Return the probabilities [n, experts] with evidence."""
        return raised_array(self.probabilities, self._nats(scale))

    def loss(self, scale: Scale) -> float:
        """Return the mean cross entropy (nats) with evidence."""
        return negative_log_likelihood(self.raised(scale), self.targets)

    def right(self, scale: Scale) -> Matrix:
        """Return [n] whether the most probable expert is one of the row's."""
        lead = self.raised(scale).argmax(axis=1)
        hit = np.take_along_axis(self.targets, lead[:, None], axis=1)[:, 0] > 0.0
        return hit.astype(np.float64)

    def _nats(self, scale: Scale) -> Matrix:
        return np.asarray(
            scale.slope * np.maximum(0.0, self.similarities - scale.centre), dtype=np.float64
        )


@dataclass(frozen=True)
class Fit:
    """A scale and what it is worth: accuracies and cross entropies (nats) on `rows` prompts.

    `before` is without evidence. `after` is of rows that the scale was not fitted on: each fifth by
    one fitted on the others. `moved` is the share of rows whose most probable expert it changes.
    """

    scale: Scale
    rows: int
    accuracy_before: float
    accuracy_after: float
    loss_before: float
    loss_after: float
    moved: float


def fit_scale(sightings: Sightings) -> Fit:
    """Return the scale with the least cross entropy, and its worth on rows held out.

    Raises `EvidenceError` for too few rows, or where no search found anything.
    """
    count = len(sightings.targets)
    if count < LEAST_ROWS:
        raise EvidenceError(f"{count} labelled prompts are too few: give at least {LEAST_ROWS}.")
    if not (sightings.similarities > -1.0).any():
        raise EvidenceError(
            "nothing was found in any collection: fill those of the experts first (`collegium "
            "index add`)."
        )
    none = Scale(0.0, 0.0)
    losses, hits = np.zeros(count), np.zeros(count)
    for fold in range(FOLDS):
        held = np.arange(fold, count, FOLDS)
        scale = _best(sightings.at(np.setdiff1d(np.arange(count), held)))
        losses[held] = sightings.at(held).loss(scale)
        hits[held] = sightings.at(held).right(scale)
    chosen = _best(sightings)
    leads = [sightings.raised(scale).argmax(axis=1) for scale in (none, chosen)]
    return Fit(
        scale=chosen,
        rows=count,
        accuracy_before=float(sightings.right(none).mean()),
        accuracy_after=float(hits.mean()),
        loss_before=sightings.loss(none),
        loss_after=float(losses.mean()),
        moved=float((leads[0] != leads[1]).mean()),
    )


def _best(sightings: Sightings) -> Scale:
    def cost(scale: Scale) -> float:
        prior = (scale.slope / PRIOR_NATS) ** 2 / (2.0 * len(sightings.targets))
        return sightings.loss(scale) + prior

    # Equal costs keep the first: the smaller slope, then the lower centre.
    found = min((Scale(*pair) for pair in product(_SLOPES, _CENTRES)), key=cost)
    for slope_step, centre_step in _STEPS:
        around = [
            replace(
                found,
                slope=max(0.0, round(found.slope + slope_step * one, 4)),
                centre=min(1.0, max(-1.0, round(found.centre + centre_step * other, 4))),
            )
            for one, other in product(range(-_REACH, _REACH + 1), repeat=2)
        ]
        found = min(around, key=cost)
    return found
