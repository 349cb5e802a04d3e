"""Tuning the weight of meaning against words on a few labelled questions.

One parameter, by search over a grid, judged by cross-validation: the folds say what the weight is
worth on questions that it was not chosen by, beside the plain weight and reciprocal ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from retrieval.candidates import Candidates, Ranked, ranked
from retrieval.errors import InvalidQuery
from retrieval.fusion import DENSE_WEIGHT, Fusion
from retrieval.measures import ndcg

WEIGHTS = (*(round(n / 10, 1) for n in range(8)), *(round(n / 100, 2) for n in range(75, 101, 5)))
"""The weights that are tried."""

FOLDS = 5
"""Parts that the questions are split into, every fifth to one."""

LEAST = 10
"""Fewest labelled questions to tune by."""

DEPTH = 10
"""Documents that count."""

NEAR = 0.002
"""A weight this close to the best is as good; the one nearest to the plain weight is taken."""

Table = npt.NDArray[np.float64]
"""nDCG by question and weight, [questions, weights]."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """A question with the ids of the documents that answer it."""

    query: str
    relevant: frozenset[str]


@dataclass(frozen=True, slots=True)
class Tuning:
    """What tuning found: nDCG@10 for each weight, and on questions that did not choose it.

    `weight` is the best by all questions. `tuned` is the mean over held-out folds, `plain` that of
    the weight `usual`, which is used without tuning, `reciprocal` that of reciprocal rank fusion;
    all over the same `questions`.
    """

    weight: float
    curve: tuple[tuple[float, float], ...]
    questions: int
    tuned: float
    usual: float
    plain: float
    reciprocal: float

    @property
    def worthwhile(self) -> bool:
        """Whether the tuned weight did no worse than the plain one on held-out questions."""
        return self.tuned >= self.plain


def tune(
    labelled: Sequence[Labelled],
    candidates: Callable[[str], Candidates],
    documents: Callable[[Sequence[int]], dict[int, str]],
    usual: float = DENSE_WEIGHT,
    depth: int = 50,
) -> Tuning:
    """Find the weight for one collection.

    `candidates` are what the collection offers to a question, `documents` maps passages' keys to
    the ids of their documents. Raises `InvalidQuery` for fewer than `LEAST` questions.
    """
    if len(labelled) < LEAST:
        raise InvalidQuery(
            f"Tuning takes at least {LEAST} labelled questions, not {len(labelled)}."
        )
    table = np.empty((len(labelled), len(WEIGHTS)))
    reciprocal, plain = np.empty(len(labelled)), np.empty(len(labelled))
    for row, question in enumerate(labelled):
        offer = candidates(question.query)
        offer = replace(offer, weight=None)
        owners = documents(offer.keys)
        for column, weight in enumerate(WEIGHTS):
            order = ranked([offer], Fusion.CONVEX, weight, depth)
            table[row, column] = _gain(order, owners, question)
        plain[row] = _gain(ranked([offer], Fusion.CONVEX, usual, depth), owners, question)
        reciprocal[row] = _gain(ranked([offer], Fusion.RECIPROCAL, 0, depth), owners, question)
    return Tuning(
        weight=_best(table, usual),
        curve=tuple(zip(WEIGHTS, table.mean(axis=0).tolist(), strict=True)),
        questions=len(labelled),
        tuned=_held_out(table, usual),
        usual=usual,
        plain=float(plain.mean()),
        reciprocal=float(reciprocal.mean()),
    )


def _gain(order: Iterable[Ranked], owners: dict[int, str], question: Labelled) -> float:
    # A document counts where its first passage stands.
    found = dict.fromkeys(owners[at.key] for at in order if at.key in owners)
    return ndcg(list(found), question.relevant, DEPTH)


def _best(table: Table, usual: float) -> float:
    means = table.mean(axis=0)
    good = [
        weight for weight, mean in zip(WEIGHTS, means, strict=True) if mean >= means.max() - NEAR
    ]
    return min(good, key=lambda weight: abs(weight - usual))


def _held_out(table: Table, usual: float) -> float:
    folds = np.arange(len(table)) % FOLDS
    scores = np.empty(len(table))
    for fold in range(FOLDS):
        weight = _best(table[folds != fold], usual)
        scores[folds == fold] = table[folds == fold, WEIGHTS.index(weight)]
    return float(scores.mean())
