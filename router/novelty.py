"""Whether the gate knows what it does not know: prompts outside all domains rank apart."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from router.background import Background
from router.dataset import LabelledPrompt
from router.evaluation import read
from router.features import Encoder, Vector
from router.gate import Gate
from router.intervals import RESAMPLES, Interval, bootstrap
from router.parts import columns
from router.scores import auroc
from router.trials import Flags, Floats, Indices

# Chosen on families of training sources that were left out in turn (README.md).
DISTANCE_NATS, SHRINKAGE = 5.0, 0.1
_LEAST = 1e-15


@dataclass(frozen=True)
class Novelty:
    """How well a gate tells `outside` rows from `inside` ones by its own unfamiliarity.

    `auroc` is the share of pairs in which the row outside is the less familiar one; `by_family`
    the same for each family of sources of the rows outside, all rows inside against it.
    """

    outside: int
    inside: int
    auroc: Interval
    by_family: dict[str, float]


def unfamiliarity(
    gate: Gate, rows: Sequence[LabelledPrompt], encoder: Encoder, generalist: str
) -> Floats:
    """[n] how little a prompt is like what experts are for: any number, in nats.

    Of two things, of which neither knows the generalist's prompts. The logit of the label unit that
    is surest, the generalist's left out, counts against it: each unit is a judgement of its own, so
    all may be low, which shared probabilities cannot be. The distance of the sentence vector to the
    nearest expert's prompts in the gate's background counts for it; without a background, nothing.
    """
    reading = read(rows, encoder)
    experts = [place for place, label in enumerate(gate.labels) if label != generalist]
    surest = reading.scores(gate, generalist)[:, experts].max(axis=1)
    logits = -np.log(np.expm1(-np.minimum(surest, -_LEAST)))
    known = gate.background and gate.background.without(columns(gate.units, generalist))
    if not known:
        return np.asarray(-logits, dtype=np.float64)
    far = distances(reading.vectors(gate.vector_dimensions), known)
    return np.asarray(DISTANCE_NATS * far - logits, dtype=np.float64)


def distances(vectors: Vector, known: Background) -> Floats:
    """[n] Mahalanobis distance, squared, of vectors [n, d] to the nearest label's mean.

    In units of the mean over the known rows. The covariance is that within labels, shrunk towards a
    multiple of the unit matrix (K. Lee et al. 2018, arXiv 1807.03888).
    """
    rows, shares = known.vectors.astype(np.float64), known.targets.astype(np.float64)
    shares = shares[:, shares.sum(axis=0) > 0.0]
    means = (shares.T @ rows) / shares.sum(axis=0)[:, None]
    within = rows - shares @ means
    covariance = within.T @ within / len(rows)
    size = covariance.trace() / len(covariance)
    shrunk = (1.0 - SHRINKAGE) * covariance + SHRINKAGE * size * np.eye(len(covariance))
    root = np.linalg.cholesky(np.linalg.inv(shrunk))

    def nearest(given: Floats) -> Floats:
        each = [(((given - mean) @ root) ** 2).sum(axis=1) for mean in means]
        return np.asarray(np.min(each, axis=0), dtype=np.float64)

    found = nearest(vectors.astype(np.float64)) / nearest(rows).mean()
    return np.asarray(found, dtype=np.float64)


def outside(rows: Sequence[LabelledPrompt], generalist: str) -> Flags:
    """[n] whether a row belongs to no expert: its only label is the generalist."""
    return np.array([row.labels == (generalist,) for row in rows], dtype=np.bool_)


def without(rows: Sequence[LabelledPrompt], generalist: str) -> list[LabelledPrompt]:
    """Return the rows that a gate which must not know the generalist's domain may learn from."""
    return [row for row in rows if generalist not in row.labels]


def measure_novelty(
    gate: Gate,
    rows: Sequence[LabelledPrompt],
    encoder: Encoder,
    generalist: str,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Novelty | None:
    """Return the figures of a gate on rows with one label; None where one side has no rows."""
    single = [row for row in rows if len(row.labels) == 1]
    is_outside = outside(single, generalist)
    if is_outside.all() or not is_outside.any():
        return None
    scores = unfamiliarity(gate, single, encoder, generalist)
    families = [row.family for row in single]
    known = scores[~is_outside]

    def statistic(at: Indices) -> float:
        return auroc(scores[at][is_outside[at]], scores[at][~is_outside[at]])

    sides = ["outside" if side else "inside" for side in is_outside.tolist()]
    return Novelty(
        outside=int(is_outside.sum()),
        inside=len(known),
        auroc=bootstrap(statistic, sides, resamples, seed),
        by_family={
            name: auroc(_of(name, families, scores, is_outside), known)
            for name in sorted(
                {name for name, side in zip(families, is_outside.tolist(), strict=True) if side}
            )
        },
    )


def _of(name: str, families: Sequence[str], scores: Floats, is_outside: Flags) -> Floats:
    same = np.array([family == name for family in families], dtype=np.bool_)
    return scores[same & is_outside]
