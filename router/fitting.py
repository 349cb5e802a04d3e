"""The layers of a gate and of its first stage, fitted to labelled rows that were read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from router.calibration import Matrix, fit_temperature
from router.dataset import DatasetError, LabelledPrompt
from router.evaluation import Reading, label_shares, target_matrix
from router.feature_rows import FeatureRows
from router.first import FirstStage, safe_confidence
from router.gate import Gate
from router.losses import LossTable
from router.optimizer import Array, FitSettings, fit
from router.surface import HASH_DIMENSIONS, STATISTICS, SURFACE_DIMENSIONS
from router.targets import mixed_targets
from router.vectors import Progress

# Blocks differ in how far their entries spread; the scales make one weight decay fit all.
# Chosen on questions asked otherwise than in the training rows (README.md).
VECTOR_SCALE, NGRAM_SCALE, STATISTICS_SCALE = 8.0, 3.0, 2.0
SCALES = (VECTOR_SCALE, NGRAM_SCALE, STATISTICS_SCALE)


@dataclass(frozen=True, eq=False)
class Material:
    """What is fitted to: `features` [m, f] with their `targets` [m, labels] and `weights` [m].

    A part of a text is taken for what the whole is, and the parts weigh together as much as a whole
    one. `surfaces` [k, s], with targets and weights of their own, are for the first stage alone.
    """

    features: Array
    targets: Array
    weights: Array
    surfaces: Array
    surface_targets: Array
    surface_weights: Array


def material(
    labels: Sequence[str],
    rows: Sequence[LabelledPrompt],
    reading: Reading,
    losses: LossTable | None = None,
    corrections: FeatureRows | None = None,
) -> Material:
    """Return the material of rows that were read, and of corrected decisions beside them.

    Every label has the same weight, whatever its rows. Raises `DatasetError` for a correction to a
    label that no row has, or one of another encoder.
    """
    shares = target_matrix(rows, labels)
    targets = mixed_targets(shares, [row.text for row in rows], labels, losses)
    whole, counts = reading.features, reading.counts
    surfaces = np.zeros((0, SURFACE_DIMENSIONS), dtype=np.float32)
    settled = np.zeros((0, len(labels)))
    weights = np.ones(len(rows))
    if corrections is not None and len(corrections):
        if corrections.features.shape[1] != whole.shape[1]:
            raise DatasetError(
                f"corrections: rows of {corrections.features.shape[1]} features do not fit the "
                f"{whole.shape[1]} of this encoder's."
            )
        own = label_shares([(label,) for label in corrections.labels], labels)
        settled = label_shares([(label,) for label in corrections.surface_labels], labels)
        shares, targets = np.concatenate([shares, own]), np.concatenate([targets, own])
        weights = np.concatenate([weights, np.full(len(own), corrections.weight)])
        whole = np.concatenate([whole, corrections.features])
        counts = np.concatenate([counts, corrections.counts])
        surfaces = corrections.surfaces
    masses = label_weights(shares, weights)
    each = np.repeat(np.arange(len(shares)), counts)
    added = 0.0 if corrections is None else corrections.weight
    return Material(
        features=whole,
        targets=targets[each].astype(np.float32),
        weights=(masses / counts)[each].astype(np.float32),
        surfaces=surfaces,
        surface_targets=settled.astype(np.float32),
        surface_weights=np.full(len(settled), added, dtype=np.float32),
    )


def label_weights(shares: Matrix, weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return weights [n] of mean 1, in proportion to those given, that give every label as much."""
    weighed = shares * weights[:, None]
    found = (weighed / weighed.sum(axis=0)).sum(axis=1)
    return np.asarray(found / found.mean(), dtype=np.float64)


def fit_gate(
    labels: tuple[str, ...],
    given: Material,
    settings: FitSettings,
    seed: int,
    progress: Progress | None = None,
    scales: tuple[float, float, float] = SCALES,
) -> Gate:
    """Return a gate at temperature 1 that was fitted to the material.

    Blocks of features whose scale is 0 are not learned from.
    """
    scale = _scale(given.features.shape[1] - SURFACE_DIMENSIONS, scales)
    features = given.features * scale
    weight, bias = fit(features, given.targets, given.weights, settings, seed, progress)
    # Folded into the weights, the scales are not needed at routing time.
    return Gate(labels=labels, weight=weight * scale, bias=bias)


def fit_first(
    given: Material,
    settings: FitSettings,
    seed: int,
    progress: Progress | None = None,
    scales: tuple[float, float, float] = SCALES,
) -> FirstStage:
    """Return a first stage that was fitted to the surfaces alone; it settles nothing yet."""
    scale = _scale(0, scales)
    surfaces = np.concatenate([given.features[:, -SURFACE_DIMENSIONS:], given.surfaces]) * scale
    targets = np.concatenate([given.targets, given.surface_targets])
    weights = np.concatenate([given.weights, given.surface_weights])
    weight, bias = fit(surfaces, targets, weights, settings, seed, progress)
    return FirstStage(weight * scale, bias)


def calibrate_first(
    first: FirstStage,
    gate: Gate,
    calibration: tuple[Sequence[LabelledPrompt], Reading],
    trial: tuple[Sequence[LabelledPrompt], Reading],
    generalist: str,
) -> FirstStage:
    """Return the first stage with its temperature, and the confidence from which on it settles.

    The temperature is fitted to the rows for `calibration`, the threshold to those of the `trial`:
    neither layer was fitted to either. A row of several labels counts as lost where it is settled,
    since one expert would answer alone; one of several parts is never settled.
    """
    (rows, reading), (tried, read) = calibration, trial
    alone = np.flatnonzero(reading.counts == 1)
    surfaces = reading.first_surfaces[alone]
    targets = target_matrix([rows[row] for row in alone.tolist()], gate.labels)
    if not len(alone):
        return first
    warm = replace(first, temperature=fit_temperature(first.scores(surfaces), targets))
    sure = settled_confidences(warm, read)
    truths = target_matrix(tried, gate.labels)
    leads = warm.probabilities(read.first_surfaces).argmax(axis=1)
    right = np.take_along_axis(truths, leads[:, None], axis=1)[:, 0] == 1.0
    judged = read.probabilities(gate, generalist).argmax(axis=1)
    gate_right = np.take_along_axis(truths, judged[:, None], axis=1)[:, 0] > 0.0
    return replace(warm, threshold=safe_confidence(sure, right, gate_right))


def settled_confidences(first: FirstStage, reading: Reading) -> npt.NDArray[np.float64]:
    """Return the first stage's confidence [n] in whole texts; 0 for those of several parts."""
    found = first.probabilities(reading.first_surfaces).max(axis=1)
    return np.asarray(np.where(reading.counts == 1, found, 0.0), dtype=np.float64)


def _scale(vector_dimensions: int, scales: tuple[float, float, float]) -> Array:
    return np.repeat(scales, (vector_dimensions, HASH_DIMENSIONS, STATISTICS)).astype(np.float32)
