"""Other ways of routing on the same sentence vectors: nearest neighbours and logistic regression.

They need the packages of `collegium[eval]`. Each is tuned on a fifth of the training rows, then
fitted on all of them.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt

from router.dataset import LabelledPrompt, hash_share
from router.features import Vector
from router.trials import Floats

TUNING_SHARE = 0.2
WARM_DECISIONS = 20

Chooser = Callable[[Vector], str]
"""A sentence vector [d] -> the name of the expert that is chosen."""


class PeerError(RuntimeError):
    """A package that a comparison needs is not installed; the message says what to install."""


@dataclass(frozen=True, eq=False)
class Lessons:
    """What a peer learns from: vectors [n, d], a label a row, and losses [n, experts] or None.

    A prompt of two experts stands there once under each. Losses may be NaN where not known.
    """

    vectors: Vector
    labels: tuple[str, ...]
    experts: tuple[str, ...]
    losses: Floats | None = None

    def at(self, rows: npt.NDArray[np.bool_]) -> "Lessons":
        """Return these rows alone."""
        kept = tuple(x for x, keep in zip(self.labels, rows.tolist(), strict=True) if keep)
        losses = None if self.losses is None else self.losses[rows]
        return Lessons(self.vectors[rows], kept, self.experts, losses)


@dataclass(frozen=True, eq=False)
class Answers:
    """A peer's choices on n rows, the seconds [n] each took without the encoder, its setting."""

    names: tuple[str, ...]
    seconds: Floats
    setting: str = ""


@dataclass(frozen=True, eq=False)
class Peer:
    """A way of routing, fitted: `answer` maps vectors [n, d] to its choices, one at a time."""

    name: str
    answer: Callable[[Vector], Answers]


Fit = Callable[[Lessons], Chooser]


def lessons(
    rows: Sequence[LabelledPrompt],
    vectors: Vector,
    experts: Sequence[str],
    losses: Floats | None = None,
) -> Lessons:
    """Return what peers learn from, given the rows' vectors [n, d] and losses [n, experts]."""
    picked = [number for number, row in enumerate(rows) for _ in row.labels]
    labels = tuple(label for row in rows for label in row.labels)
    some = None if losses is None else losses[picked]
    return Lessons(np.asarray(vectors)[picked], labels, tuple(experts), some)


def fit_peers(taught: Lessons, seed: int = 0) -> tuple[Peer, ...]:
    """Return the peers, tuned and fitted.

    Neighbours by losses predict each expert's loss from the neighbours' and take the least; they
    are there only if enough losses are known. Raises `PeerError` without scikit-learn.
    """
    if find_spec("sklearn") is None:
        raise PeerError(
            "peers need scikit-learn, which is not installed: pip install 'collegium[eval]'"
        )
    peers = [
        tuned("k nearest neighbours", {f"k = {k}": _neighbours(k) for k in (1, 5, 10, 20)}, taught),
        tuned(
            "logistic regression", {f"C = {c:g}": _logistic(c, seed) for c in (1, 10, 100)}, taught
        ),
    ]
    if taught.losses is not None and np.isfinite(taught.losses).all(axis=1).sum() >= 50:
        candidates = {f"k = {k}": _neighbours_by_loss(k) for k in (5, 10, 20, 40)}
        peers.append(tuned("k nearest neighbours, losses", candidates, taught))
    return tuple(peers)


def apart(taught: Lessons) -> npt.NDArray[np.bool_]:
    """[n] which rows tuning asks about: a share `TUNING_SHARE`, the same for every peer."""
    # By the vector, so that a prompt of two labels is not on both sides.
    shares = np.array([hash_share(vector.tobytes().hex()) for vector in taught.vectors])
    return np.asarray(shares < TUNING_SHARE, dtype=np.bool_)


def tuned(name: str, candidates: Mapping[str, Fit], taught: Lessons) -> Peer:
    """Fit the candidate that is right most often on rows set apart; the first wins a tie."""
    asked = apart(taught)
    rest, trial = taught.at(~asked), taught.at(asked)
    scores = {}
    for setting, fit in candidates.items():
        choose = fit(rest)
        found = [choose(vector) for vector in trial.vectors]
        scores[setting] = np.mean([a == b for a, b in zip(found, trial.labels, strict=True)])
    best = max(scores, key=lambda setting: scores[setting])
    return Peer(name, partial(_one_by_one, candidates[best](taught), best))


def _one_by_one(choose: Chooser, setting: str, vectors: Vector) -> Answers:
    for vector in vectors[:WARM_DECISIONS]:
        choose(vector)
    names, seconds = [], []
    for vector in vectors:
        started = time.perf_counter()
        names.append(choose(vector))
        seconds.append(time.perf_counter() - started)
    return Answers(tuple(names), np.asarray(seconds), setting)


def _neighbours(k: int) -> Fit:
    def fit(taught: Lessons) -> Chooser:
        found = import_module("sklearn.neighbors")
        model = found.KNeighborsClassifier(min(k, len(taught.labels)), algorithm="brute")
        return _by_label(model.fit(taught.vectors, taught.labels))

    return fit


def _logistic(inverse_penalty: float, seed: int) -> Fit:
    def fit(taught: Lessons) -> Chooser:
        found = import_module("sklearn.linear_model")
        model = found.LogisticRegression(C=inverse_penalty, max_iter=1000, random_state=seed)
        return _by_label(model.fit(taught.vectors, taught.labels))

    return fit


def _by_label(model: Any) -> Chooser:  # noqa: ANN401  scikit-learn has no types
    return lambda vector: str(model.predict(vector[None])[0])


def _neighbours_by_loss(k: int) -> Fit:
    def fit(taught: Lessons) -> Chooser:
        if taught.losses is None:
            raise ValueError("there are no losses to learn from")
        known = np.isfinite(taught.losses).all(axis=1)
        found = import_module("sklearn.neighbors")
        model = found.KNeighborsRegressor(min(k, int(known.sum())), algorithm="brute")
        model.fit(taught.vectors[known], taught.losses[known])
        return lambda vector: taught.experts[int(model.predict(vector[None])[0].argmin())]

    return fit
