"""How well a gate and a policy route labelled prompts."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from router.calibration import Matrix, calibration_error, negative_log_likelihood
from router.dataset import DatasetError, LabelledPrompt
from router.features import Encoder, Vector, featurize
from router.gate import Gate
from router.parts import columns, strongest
from router.policy import Policy, choose, project
from router.surface import SURFACE_DIMENSIONS

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


@dataclass(frozen=True, eq=False)
class Reading:
    """What the gate reads of n prompts: `features` [m, d + surface], a row for every part.

    Prompt i has the rows from `starts[i]` [n] to the next start.
    """

    features: Vector
    starts: npt.NDArray[np.int64]

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """[n] parts of each prompt."""
        return np.diff(self.starts, append=len(self.features))

    @property
    def first_surfaces(self) -> Vector:
        """[n, surface] the surface of each prompt's first part."""
        return np.asarray(self.features[self.starts, -SURFACE_DIMENSIONS:], dtype=np.float32)

    def scores(self, gate: Gate, generalist: str) -> Matrix:
        """The gate's scores [n, labels] of whole prompts, as `Router` has them."""
        own = columns(gate.labels, generalist)
        return strongest(gate.scores(self.features), self.starts, own)

    def probabilities(self, gate: Gate, generalist: str) -> Matrix:
        """The gate's calibrated probabilities [n, labels] of whole prompts."""
        return gate.judge(self.features, self.starts, generalist)

    def vectors(self, dimensions: int) -> Vector:
        """One unit vector [n, dimensions] for every prompt, the mean of its parts'."""
        sums = np.add.reduceat(self.features[:, :dimensions], self.starts, axis=0)
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        return np.asarray(sums / np.maximum(lengths, 1e-12), dtype=np.float32)


def read(rows: Sequence[LabelledPrompt], encoder: Encoder) -> Reading:
    """Read every row as a conversation of one message; an encoder that remembers is quickest."""
    return stacked(featurize([("user", row.text)], encoder).joined() for row in rows)


def stacked(features: Iterable[Vector]) -> Reading:
    """Return the reading of prompts, of each of which the joined features [parts, d] are given."""
    found = list(features)
    counts = [len(rows) for rows in found]
    return Reading(np.concatenate(found), np.cumsum([0, *counts[:-1]], dtype=np.int64))


def target_matrix(rows: Sequence[LabelledPrompt], labels: Sequence[str]) -> Matrix:
    """Return the label shares [n, labels] of rows: each row's labels share 1 equally.

    Raises `DatasetError` for a row with a label that is not among `labels`.
    """
    return label_shares([row.labels for row in rows], labels)


def label_shares(owners: Sequence[Sequence[str]], labels: Sequence[str]) -> Matrix:
    """Return the shares [n, labels] of n sets of labels, as `target_matrix` does of rows."""
    column = {label: position for position, label in enumerate(labels)}
    targets = np.zeros((len(owners), len(labels)), dtype=np.float64)
    for names, target in zip(owners, targets, strict=True):
        for name in names:
            if name not in column:
                raise DatasetError(f"no label {name!r} here; there are {', '.join(labels)}.")
            target[column[name]] = 1.0 / len(names)
    return targets


def evaluate(
    gate: Gate,
    rows: Sequence[LabelledPrompt],
    reading: Reading,
    generalist: str = "general",
    policy: Policy = DEFAULT_POLICY,
) -> Metrics:
    """Return the metrics of a gate on rows that were read."""
    probabilities = reading.probabilities(gate, generalist)
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
