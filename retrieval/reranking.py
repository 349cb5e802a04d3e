"""Reranking: a slower, sharper judge reads the question with each of the best passages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from retrieval.passage import Passage

RERANKED = 20
"""Passages at the top of the fused ranking that the judge reads."""


class Reranker(Protocol):
    """Whatever can say how well passages answer a question; `CrossEncoder` is one."""

    def score(self, query: str, passages: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return one score for each passage, [n], larger for better; the scale does not matter."""
        ...


def judged(reranker: Reranker, query: str, passages: Sequence[Passage]) -> list[float]:
    """Return the judge's verdict on each passage, larger for better."""
    if not passages:
        return []
    verdicts = reranker.score(query, [f"{p.title}\n{p.text}" for p in passages])
    return [float(verdict) for verdict in verdicts]


def reordered(verdicts: Sequence[float | None]) -> list[int]:
    """Return the places of passages, best first, after those with a verdict were put in order.

    They exchange their places; those without one keep theirs. Scores belong to places, so that
    they fall as before and still compare with those of other searches.
    """
    order = list(range(len(verdicts)))
    held = [(place, verdict) for place, verdict in enumerate(verdicts) if verdict is not None]
    best_first = np.argsort([-verdict for _, verdict in held], kind="stable")
    for (place, _), taken in zip(held, best_first.tolist(), strict=True):
        order[place] = held[taken][0]
    return order
