"""How well a gate and a policy route labelled prompts."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from router.calibration import Matrix, calibration_error, negative_log_likelihood
from router.dataset import DatasetError, LabelledPrompt
from router.features import Vector, salient
from router.gate import Gate
from router.policy import Policy, choose, project
from router.surface import surface

DEFAULT_POLICY = Policy()


@dataclass(frozen=True)
class Metrics:
    """Figures on `prompts` labelled rows.

    `accuracy`: the most probable label is one of the row's. `nll` in nats, `ece` over 15 bins of
    equal mass. `exact_sets`: the policy chose precisely the row's experts; `pairs_found`: of the
    rows with two experts, both were chosen (None without such rows). `mean_experts` chosen a
    row; `abstained`, the share left to the generalist. `confusion[true][chosen]` counts rows
    with one label by the most probable label; `by_language` and `by_source` are accuracies.
    """

    prompts: int
    accuracy: float
    nll: float
    ece: float
    exact_sets: float
    pairs_found: float | None
    mean_experts: float
    abstained: float
    confusion: dict[str, dict[str, int]]
    by_language: dict[str, float]
    by_source: dict[str, float]

    def rounded(self) -> dict[str, object]:
        """Return the figures as a mapping fit for JSON, rounded to four digits."""
        return {key: _rounded(value) for key, value in asdict(self).items()}


def feature_matrix(rows: Sequence[LabelledPrompt], vectors: Vector) -> npt.NDArray[np.float32]:
    """Return the joined features [n, d + surface] of rows, given their sentence vectors [n, d].

    The vectors must be those of `salient(row.text)`.
    """
    surfaces = np.stack([surface(salient(row.text)) for row in rows])
    return np.concatenate([np.asarray(vectors, dtype=np.float32), surfaces], axis=1)


def target_matrix(rows: Sequence[LabelledPrompt], labels: Sequence[str]) -> Matrix:
    """Return the label shares [n, labels] of rows: each row's labels share 1 equally.

    Raises `DatasetError` for a row with a label that is not among `labels`.
    """
    column = {label: position for position, label in enumerate(labels)}
    targets = np.zeros((len(rows), len(labels)), dtype=np.float64)
    for row, target in zip(rows, targets, strict=True):
        for label in row.labels:
            if label not in column:
                raise DatasetError(f"no label {label!r} here; there are {', '.join(labels)}.")
            target[column[label]] = 1.0 / len(row.labels)
    return targets


def evaluate(
    gate: Gate,
    rows: Sequence[LabelledPrompt],
    vectors: Vector,
    generalist: str = "general",
    policy: Policy = DEFAULT_POLICY,
) -> Metrics:
    """Return the metrics of a gate on rows whose sentence vectors [n, d] are given."""
    probabilities = gate.probabilities(feature_matrix(rows, vectors))
    targets = target_matrix(rows, gate.labels)
    chosen = _chosen(gate, probabilities, generalist, policy)
    top = [gate.labels[position] for position in probabilities.argmax(axis=1)]
    right = [label in row.labels for label, row in zip(top, rows, strict=True)]
    pairs = [
        set(row.labels) <= names
        for row, names in zip(rows, chosen, strict=True)
        if len(row.labels) > 1
    ]
    exact = [set(row.labels) == names for row, names in zip(rows, chosen, strict=True)]
    unsure = probabilities.max(axis=1) < policy.min_confidence
    return Metrics(
        prompts=len(rows),
        accuracy=float(np.mean(right)),
        nll=negative_log_likelihood(probabilities, targets),
        ece=calibration_error(probabilities, targets),
        exact_sets=float(np.mean(exact)),
        pairs_found=float(np.mean(pairs)) if pairs else None,
        mean_experts=float(np.mean([len(names) for names in chosen])),
        abstained=float(unsure.mean()),
        confusion=_confusion(gate.labels, rows, top),
        by_language=_by([row.language for row in rows], right),
        by_source=_by([row.source for row in rows], right),
    )


def _chosen(gate: Gate, probabilities: Matrix, generalist: str, policy: Policy) -> list[set[str]]:
    sets = []
    for row in probabilities.tolist():
        names = project(dict(zip(gate.labels, row, strict=True)), gate.labels, generalist)
        unsure = max(names.values()) < policy.min_confidence
        sets.append({generalist} if unsure else set(choose(names, policy)))
    return sets


def _confusion(
    labels: Sequence[str], rows: Sequence[LabelledPrompt], top: Sequence[str]
) -> dict[str, dict[str, int]]:
    counts = {true: dict.fromkeys(labels, 0) for true in labels}
    for row, label in zip(rows, top, strict=True):
        if len(row.labels) == 1:
            counts[row.labels[0]][label] += 1
    return counts


def _by(keys: Sequence[str], right: Sequence[bool]) -> dict[str, float]:
    groups: dict[str, list[bool]] = {}
    for key, hit in zip(keys, right, strict=True):
        groups.setdefault(key, []).append(hit)
    return {key: float(np.mean(groups[key])) for key in sorted(groups)}


def _rounded(value: object) -> object:
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    return round(value, 4) if isinstance(value, float) else value
