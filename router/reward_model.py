"""A model of scores: what a choice of experts would have got, from what the log shows.

Ridge regression on three things that any two routers have in common: which experts the choice
holds (equal shares), the probability that the logging gate gave them together, and a constant. It
need not be right: doubly robust estimates correct it where the log knows better (`off_policy.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

PENALTY = 1.0
FOLDS = 5

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
Choice = tuple[str, ...]


def describe(
    choices: Sequence[Choice],
    probabilities: Sequence[Mapping[str, float]],
    experts: Sequence[str],
) -> Floats:
    """Return what the model sees of choices: [n, experts + 1]."""
    columns = {name: column for column, name in enumerate(experts)}
    seen = np.zeros((len(choices), len(experts) + 1))
    for row, (choice, known) in enumerate(zip(choices, probabilities, strict=True)):
        for name in choice:
            if name in columns:
                seen[row, columns[name]] = 1.0 / len(choice)
        seen[row, -1] = sum(known.get(name, 0.0) for name in choice)
    return seen


def fit(seen: Floats, scores: Floats) -> Floats:
    """Return the ridge coefficients [columns + 1], the constant last and without penalty."""
    if len(scores) == 0:
        return np.zeros(seen.shape[1] + 1)
    middle, level = seen.mean(axis=0), float(scores.mean())
    centred = seen - middle
    inner = centred.T @ centred + PENALTY * np.eye(seen.shape[1])
    slopes = np.linalg.solve(inner, centred.T @ (scores - level))
    return np.append(slopes, level - float(middle @ slopes))


def predict(coefficients: Floats, seen: Floats) -> Floats:
    """Return the scores [n] that the model expects, none beyond −1 and 1."""
    return np.asarray(np.clip(seen @ coefficients[:-1] + coefficients[-1], -1.0, 1.0))


def cross_fitted(
    taken: Floats, wanted: Floats, scores: Floats, clusters: Indices
) -> tuple[Floats, Floats]:
    """Return the expected scores [n] of the choices taken and of those wanted.

    Each row is predicted by a model of other clusters' rows, so that no row speaks for itself.
    """
    folds = clusters % FOLDS
    of_taken, of_wanted = np.zeros(len(scores)), np.zeros(len(scores))
    for fold in np.unique(folds):
        here = folds == fold
        coefficients = fit(taken[~here], scores[~here])
        of_taken[here] = predict(coefficients, taken[here])
        of_wanted[here] = predict(coefficients, wanted[here])
    return of_taken, of_wanted
