"""Scores of decisions against labels: F1, confusion, reliability, ranking, risk and coverage."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from router.calibration import Matrix
from router.trials import Flags, Floats

CURVE_POINTS = 100


@dataclass(frozen=True)
class LabelScore:
    """How one label was found among `rows` rows that bear it alone."""

    rows: int
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class Bin:
    """Rows of like confidence: their mean confidence, and the share that was right."""

    rows: int
    confidence: float
    right: float


@dataclass(frozen=True)
class RiskCurve:
    """Risk over coverage in at most `CURVE_POINTS` points; `area` is the mean risk under it."""

    area: float
    coverage: tuple[float, ...]
    risk: tuple[float, ...]


def label_scores(truths: Sequence[str], found: Sequence[str]) -> dict[str, LabelScore]:
    """Return the scores of every label that is true or was found somewhere; 0 for 0/0."""
    pairs = Counter(zip(truths, found, strict=True))
    true_counts, found_counts = Counter(truths), Counter(found)
    scores = {}
    for label in sorted(set(truths) | set(found)):
        hits = pairs[label, label]
        precision = hits / found_counts[label] if found_counts[label] else 0.0
        recall = hits / true_counts[label] if true_counts[label] else 0.0
        both = true_counts[label] + found_counts[label]
        scores[label] = LabelScore(true_counts[label], precision, recall, 2.0 * hits / both)
    return scores


def macro_f1(truths: Sequence[str], found: Sequence[str]) -> float:
    """Return the mean F1 over the labels that are true or were found somewhere."""
    return float(np.mean([score.f1 for score in label_scores(truths, found).values()]))


def confusion(
    labels: Sequence[str], truths: Sequence[str], found: Sequence[str]
) -> dict[str, dict[str, int]]:
    """Return the counts [true][found] of every pair of labels."""
    pairs = Counter(zip(truths, found, strict=True))
    return {true: {label: pairs[true, label] for label in labels} for true in labels}


def reliability(confidence: Floats, right: Floats, bins: int = 15) -> tuple[Bin, ...]:
    """Return bins of equal mass, least confident first.

    `right` [n] is 1 or 0 a row, or a share where a row belongs to several labels.
    """
    order = np.argsort(confidence, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    return tuple(
        Bin(len(part), float(confidence[part].mean()), float(right[part].mean())) for part in parts
    )


def expected_error(bins: Sequence[Bin]) -> float:
    """Return the expected calibration error: the bins' gaps, weighted by their rows."""
    rows = sum(part.rows for part in bins)
    return sum(abs(part.confidence - part.right) * part.rows for part in bins) / rows


def brier(probabilities: Matrix, targets: Matrix) -> float:
    """Return the mean squared distance of probabilities from label shares [n, labels]."""
    return float(((probabilities - targets) ** 2).sum(axis=1).mean())


def auroc(positive: Floats, negative: Floats) -> float:
    """Return how often a positive row scores above a negative one; ties count half.

    Raises `ValueError` where either side is empty.
    """
    if not len(positive) or not len(negative):
        raise ValueError("a ranking needs rows on both sides")
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, side="left")
    not_above = np.searchsorted(ordered, positive, side="right")
    return float((below + not_above).mean() / 2.0 / len(negative))


def risk_coverage(confidence: Floats, bad: Flags) -> tuple[Floats, Floats]:
    """Return (coverage [m], risk [m]) of answering only what is confident enough.

    One point for each confidence that occurs, the strictest first: the share of rows at or
    above it, and the share of `bad` rows among them.
    """
    order = np.argsort(-confidence, kind="stable")
    ranked = confidence[order]
    counts = np.arange(1, len(order) + 1)
    risks = np.cumsum(bad[order]) / counts
    # Rows of equal confidence are accepted together or not at all.
    ends = np.append(ranked[1:] != ranked[:-1], True)
    return counts[ends] / len(order), risks[ends]


def risk_curve(confidence: Floats, bad: Flags) -> RiskCurve:
    """Return the curve of `risk_coverage` with its area."""
    coverage, risk = risk_coverage(confidence, bad)
    area = float((np.diff(coverage, prepend=0.0) * risk).sum())
    picked = np.unique(np.linspace(0, len(coverage) - 1, CURVE_POINTS).astype(int))
    return RiskCurve(area, tuple(coverage[picked].tolist()), tuple(risk[picked].tolist()))
