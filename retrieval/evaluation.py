"""How well a collection answers labelled questions, under several ways of searching it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from retrieval.checked_encoder import Encode
from retrieval.fusion import Fusion
from retrieval.index import Index
from retrieval.measures import hit, ndcg, recall, reciprocal_rank
from retrieval.reading import Reads
from retrieval.schema import Vector
from retrieval.search_settings import SearchSettings
from retrieval.tuning import Labelled

PASSAGES = 30
"""Passages that are asked for, so that ten documents are among them."""

Gains = npt.NDArray[np.float64]
"""One figure for each question, [n]."""

Measure = Callable[[Sequence[str], frozenset[str]], float]

MEASURES: Mapping[str, Measure] = {
    "hit@1": lambda found, relevant: hit(found, relevant, 1),
    "hit@5": lambda found, relevant: hit(found, relevant, 5),
    "hit@10": lambda found, relevant: hit(found, relevant, 10),
    "recall@5": lambda found, relevant: recall(found, relevant, 5),
    "recall@10": lambda found, relevant: recall(found, relevant, 10),
    "mrr@10": lambda found, relevant: reciprocal_rank(found, relevant, 10),
    "ndcg@10": lambda found, relevant: ndcg(found, relevant, 10),
}
"""What is measured, of the documents found, best first."""

MILLISECONDS = "ms"
"""The name under which a question's time stands beside the measures."""


@dataclass(frozen=True, slots=True)
class Shelf:
    """Where a collection lies and how it is encoded."""

    root: Path
    passages: Encode
    questions: Encode
    reads: Reads | None = None

    def open(self, settings: SearchSettings) -> Index:
        """Open all collections there, to be searched as the settings say."""
        return Index(
            self.root, self.passages, settings, encode_query=self.questions, reads=self.reads
        )


def ways(settings: SearchSettings, tuned: float | None) -> dict[str, SearchSettings]:
    """Return the ways of searching that are compared: each half alone, and both fused.

    `tuned` is the weight that labelled questions chose, None where none did.
    """
    plain = replace(settings, fusion=Fusion.CONVEX, alike=True)
    found = {
        "words": replace(plain, dense_weight=0.0),
        "meaning": replace(plain, dense_weight=1.0),
        "fused": replace(settings, alike=True),
    }
    if tuned is not None:
        found["tuned"] = replace(plain, dense_weight=tuned)
    return found


def gains(
    index: Index, collection: str, asked: Sequence[Labelled], vectors: Vector
) -> dict[str, Gains]:
    """Return every measure, and milliseconds, of each question, [n].

    `vectors` [n, d] are the questions'; their encoding is no part of the time. A document counts
    where its first passage stands. Raises `MissingCollection`.
    """
    found = {name: np.empty(len(asked)) for name in (*MEASURES, MILLISECONDS)}
    for row, (question, vector) in enumerate(zip(asked, vectors, strict=True)):
        start = time.perf_counter()
        passages = index.search(question.query, vector, [collection], PASSAGES)
        found[MILLISECONDS][row] = 1000 * (time.perf_counter() - start)
        documents = list(dict.fromkeys(passage.document_id for passage in passages))
        for name, measure in MEASURES.items():
            found[name][row] = measure(documents, question.relevant)
    return found
