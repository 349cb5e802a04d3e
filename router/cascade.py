"""What a first stage is worth: how much it settles, how well, and what that costs in accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from router.dataset import LabelledPrompt
from router.evaluation import Reading, target_matrix
from router.first import FirstStage
from router.fitting import settled_confidences
from router.gate import Gate
from router.intervals import RESAMPLES, Interval, mean_interval
from router.trials import Flags, Floats, Trials, domain


@dataclass(frozen=True)
class Settled:
    """Of `rows` rows the first stage settles a `share`, right for `accuracy` of these.

    `cascade` is the accuracy on all rows with the first stage, `gate` that without.
    """

    rows: int
    share: float
    accuracy: float | None
    cascade: float
    gate: float

    def rounded(self) -> dict[str, Any]:
        """Return the figures as a mapping fit for JSON, rounded to four digits."""
        return {k: round(v, 4) if isinstance(v, float) else v for k, v in asdict(self).items()}


@dataclass(frozen=True)
class Cascade:
    """The same with intervals, of decisions: a row is right where the likeliest is a label of it.

    `loss` is the accuracy of the gate less that of the cascade, on the same rows. `flipped` is the
    share of the settled rows that the gate would lead with another expert, `threshold` the
    confidence from which on the first stage settles. `by_domain` are shares that it settles.
    """

    threshold: float
    share: Interval
    accuracy: Interval | None
    cascade: Interval
    gate: Interval
    loss: Interval
    flipped: float | None
    by_domain: dict[str, float]


def measure_settled(
    gate: Gate, rows: Sequence[LabelledPrompt], reading: Reading, generalist: str
) -> Settled | None:
    """Return the figures of a gate on rows that were read; None without a first stage."""
    if gate.first is None:
        return None
    truths = target_matrix(rows, gate.labels)
    judged = reading.probabilities(gate, generalist).argmax(axis=1)
    first = gate.first.probabilities(reading.first_surfaces).argmax(axis=1)
    settled = settled_confidences(gate.first, reading) >= gate.first.threshold
    mixed = np.where(settled, first, judged)
    right, whole = (
        np.take_along_axis(truths, leads[:, None], axis=1)[:, 0] > 0.0 for leads in (mixed, judged)
    )
    return Settled(
        rows=len(rows),
        share=float(settled.mean()),
        accuracy=float(right[settled].mean()) if settled.any() else None,
        cascade=float(right.mean()),
        gate=float(whole.mean()),
    )


def measure_cascade(
    trials: Trials,
    alone: Trials,
    first: FirstStage | None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Cascade | None:
    """Return what a router's first stage did in trials of the router; None without one.

    `alone` are trials of the same rows in which the gate decided all.
    """
    if first is None:
        return None
    right, gate_right = (one.right.astype(np.float64) for one in (trials, alone))
    settled, domains = trials.settled, [domain(row) for row in trials.rows]

    def mean(values: Floats) -> Interval:
        return mean_interval(values, domains, resamples, seed)

    picked = np.flatnonzero(settled)
    within = [domains[row] for row in picked]
    some = len(picked) > 0
    return Cascade(
        threshold=first.threshold,
        share=mean(settled.astype(np.float64)),
        accuracy=mean_interval(right[picked], within, resamples, seed) if some else None,
        cascade=mean(right),
        gate=mean(gate_right),
        loss=mean(gate_right - right),
        flipped=float((trials.lead != alone.lead)[picked].mean()) if some else None,
        by_domain=_by_domain(settled, domains),
    )


def _by_domain(settled: Flags, domains: Sequence[str]) -> dict[str, float]:
    names = np.asarray(domains)
    return {str(name): float(settled[names == name].mean()) for name in np.unique(names)}
