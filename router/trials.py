"""Labelled prompts with the decisions that a router made on them: what every figure is made of."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from router.calibration import Matrix
from router.dataset import LabelledPrompt
from router.evaluation import target_matrix
from router.router import Router
from router.vectors import Progress

Flags = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

SEVERAL = "mixed"


@dataclass(frozen=True, eq=False)
class Trials:
    """n labelled prompts and the decisions on them; columns follow `experts`.

    `probabilities`, `weights` and `targets` [n, experts] sum to 1 a row; `targets` are the label
    shares. `abstained` [n] tells where the generalist answered for want of confidence, `seconds`
    [n] how long each decision took, the encoder included, `settled` [n] where it was the first
    stage's.
    """

    experts: tuple[str, ...]
    generalist: str
    rows: tuple[LabelledPrompt, ...]
    probabilities: Matrix
    weights: Matrix
    targets: Matrix
    abstained: Flags
    seconds: Floats
    settled: Flags

    @property
    def domains(self) -> tuple[str, ...]:
        """Each row's label, or `SEVERAL` where it has more than one."""
        return tuple(domain(row) for row in self.rows)

    @property
    def single(self) -> Flags:
        """[n] which rows have one label only."""
        return np.array([len(row.labels) == 1 for row in self.rows], dtype=np.bool_)

    @property
    def likeliest(self) -> Indices:
        """[n] the most probable expert's column."""
        return np.asarray(self.probabilities.argmax(axis=1), dtype=np.int64)

    @property
    def lead(self) -> Indices:
        """[n] the column of the expert with the largest weight: who leads the answer."""
        return np.asarray(self.weights.argmax(axis=1), dtype=np.int64)

    @property
    def confidence(self) -> Floats:
        """[n] the most probable expert's probability."""
        return np.asarray(self.probabilities.max(axis=1), dtype=np.float64)

    @property
    def right(self) -> Flags:
        """[n] whether the most probable expert is one of the row's labels."""
        return np.take_along_axis(self.targets, self.likeliest[:, None], axis=1)[:, 0] > 0.0

    def at(self, rows: Indices) -> "Trials":
        """Return these trials alone."""
        return Trials(
            self.experts,
            self.generalist,
            tuple(self.rows[row] for row in rows),
            self.probabilities[rows],
            self.weights[rows],
            self.targets[rows],
            self.abstained[rows],
            self.seconds[rows],
            self.settled[rows],
        )

    def names(self, columns: Indices) -> list[str]:
        """The experts of these columns."""
        return [self.experts[column] for column in columns.tolist()]

    def chose(self, row: int, expert: str) -> bool:
        """Tell whether this expert is among those chosen for this row."""
        return bool(self.weights[row, self.experts.index(expert)] > 0.0)


def domain(row: LabelledPrompt) -> str:
    """The row's label, or `SEVERAL` where it has more than one."""
    return row.labels[0] if len(row.labels) == 1 else SEVERAL


def run_trials(
    router: Router,
    rows: Sequence[LabelledPrompt],
    progress: Progress | None = None,
    label: str = "route",
) -> Trials:
    """Route every row as a conversation of one message.

    Raises `DatasetError` for a label that is no expert of the router. `progress` is called with
    (label, done, total).
    """
    experts = router.experts
    targets = target_matrix(rows, experts)
    shape = (len(rows), len(experts))
    probabilities, weights = np.zeros(shape), np.zeros(shape)
    abstained, settled = np.zeros((2, len(rows)), dtype=np.bool_)
    seconds = np.zeros(len(rows))
    for number, row in enumerate(rows):
        decision = router.route([("user", row.text)])
        for candidate in decision.candidates:
            column = experts.index(candidate.name)
            probabilities[number, column] = candidate.probability
            weights[number, column] = candidate.weight
        abstained[number], seconds[number] = decision.abstained, decision.seconds
        settled[number] = decision.stage == "first"
        if progress is not None and (number % 50 == 49 or number == len(rows) - 1):
            progress(label, number + 1, len(rows))
    return Trials(
        experts,
        router.generalist,
        tuple(rows),
        probabilities,
        weights,
        targets,
        abstained,
        seconds,
        settled,
    )
