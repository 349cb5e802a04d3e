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
    one. The first stage is fitted to what was said `alone` [m], and to `surfaces` [k, s] of its own
    with `surface_targets` [k, labels]; `first_weights` [rows that are alone, and k] are for both.
    """

    features: Array
    targets: Array
    weights: Array
    alone: npt.NDArray[np.bool_]
    surfaces: Array
    surface_targets: Array
    first_weights: Array


@dataclass(frozen=True, eq=False)
class _Group:
    """Rows of one kind: label shares and targets [n, labels], features of their parts, weight."""

    shares: Matrix
    targets: Matrix
    features: Array
    counts: npt.NDArray[np.int64]
    weight: float = 1.0
    alone: bool = True


def material(
    labels: Sequence[str],
    rows: Sequence[LabelledPrompt],
    reading: Reading,
    losses: LossTable | None = None,
    corrections: FeatureRows | None = None,
    conversations: tuple[Sequence[LabelledPrompt], Reading] | None = None,
) -> Material:
    """Return the material of rows that were read, and of what stands beside them.

    That are corrected decisions, and conversations that have the labels of rows. Every label has
    the same weight, whatever its rows, with the gate as with the first stage. Raises `DatasetError`
    for a correction to a label that no row has, or one of another encoder.
    """
    shares = target_matrix(rows, labels)
    targets = mixed_targets(shares, [row.text for row in rows], labels, losses)
    groups = [_Group(shares, targets, reading.features, reading.counts)]
    surfaces = np.zeros((0, SURFACE_DIMENSIONS), dtype=np.float32)
    settled = np.zeros((0, len(labels)))
    added = 1.0
    if corrections is not None and len(corrections):
        groups.append(_corrected(labels, corrections, reading.features.shape[1]))
        surfaces, added = corrections.surfaces, corrections.weight
        settled = label_shares([(label,) for label in corrections.surface_labels], labels)
    if conversations is not None and len(conversations[0]):
        told, read = conversations
        own = target_matrix(told, labels)
        groups.append(_Group(own, own, read.features, read.counts, alone=False))
    return _joined(groups, surfaces, settled, added)


def _corrected(labels: Sequence[str], corrections: FeatureRows, width: int) -> _Group:
    if corrections.features.shape[1] != width:
        raise DatasetError(
            f"corrections: rows of {corrections.features.shape[1]} features do not fit the "
            f"{width} of this encoder's."
        )
    own = label_shares([(label,) for label in corrections.labels], labels)
    return _Group(own, own, corrections.features, corrections.counts, corrections.weight)


def _joined(groups: Sequence[_Group], surfaces: Array, settled: Matrix, added: float) -> Material:
    """Of `settled` decisions [k, labels] there are the surfaces alone, each of the weight added."""
    shares = np.concatenate([group.shares for group in groups])
    weights = np.concatenate([np.full(len(group.shares), group.weight) for group in groups])
    alone = np.concatenate([np.full(len(group.shares), group.alone) for group in groups])
    counts = np.concatenate([group.counts for group in groups])
    targets = np.concatenate([group.targets for group in groups])
    each = np.repeat(np.arange(len(shares)), counts)
    first = label_weights(
        np.concatenate([shares[alone], settled]),
        np.concatenate([weights[alone], np.full(len(settled), added)]),
    )
    own = np.repeat(first[: alone.sum()] / counts[alone], counts[alone])
    return Material(
        features=np.concatenate([group.features for group in groups]),
        targets=targets[each].astype(np.float32),
        weights=(label_weights(shares, weights) / counts)[each].astype(np.float32),
        alone=alone[each],
        surfaces=surfaces,
        surface_targets=settled.astype(np.float32),
        first_weights=np.concatenate([own, first[alone.sum() :]]).astype(np.float32),
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
    own = given.features[given.alone, -SURFACE_DIMENSIONS:]
    surfaces = np.concatenate([own, given.surfaces]) * scale
    targets = np.concatenate([given.targets[given.alone], given.surface_targets])
    weight, bias = fit(surfaces, targets, given.first_weights, settings, seed, progress)
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
