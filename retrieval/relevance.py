"""Relevance: how likely what a search found holds the answer at all.

A logistic model over what tells an answer from its neighbours: not how alike the best passage is,
which depends on the question, but how far it stands out from the others, by meaning and by words,
and how much of the question's rare words it holds. `benchmarks/silence.py` fits and measures it.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
import numpy.typing as npt

from retrieval.finding import Finding, shortlist
from retrieval.passage import Passage
from retrieval.search_settings import SearchSettings
from retrieval.words import content_words, words

SIGNALS = (
    "cosine",
    "cosine_lead",
    "cosine_deviation",
    "words",
    "words_lead",
    "coverage",
    "coverage_lead",
    "coverage_of_first",
    "agreement",
    "absent",
    "length",
)
"""Names of what `signals` returns, in its order."""

POOL = 20
"""Passages at the top that are read for the words of the question."""

_NEXT = slice(1, 6)
_UNRELATED = 0.1
"""The cosine of texts that have nothing to do with each other: a small collection is filled up."""

_FILE = "relevance.json"

Signals = npt.NDArray[np.float64]
"""What is read of one search, [len(SIGNALS)]."""


@dataclass(frozen=True)
class _Model:
    weights: Signals
    bias: float
    threshold: float


def relevance(question: str, findings: Sequence[Finding], settings: SearchSettings) -> float:
    """Return the probability, 0 to 1, that some passage of these findings answers `question`.

    0 where nothing was found. `settings` are those of the search.
    """
    read = signals(question, findings, settings)
    if read is None:
        return 0.0
    logit = _model().bias + float(_model().weights @ read)
    return 1.0 / (1.0 + math.exp(-max(-30.0, min(30.0, logit))))


def least_relevance() -> float:
    """Return the probability below which the sources are said to hold no answer."""
    return _model().threshold


def signals(question: str, findings: Sequence[Finding], settings: SearchSettings) -> Signals | None:
    """Return what the model reads of a search, named by `SIGNALS`; None where nothing was found."""
    filled = [finding.offer for finding in findings if finding.offer.keys]
    pool = [one.passage for _, one in shortlist(findings, 1, settings)][:POOL]
    if not filled or not pool:
        return None
    cosines = _falling(np.concatenate([offer.similarity for offer in filled]), _UNRELATED)
    scores = _falling(np.concatenate([offer.bm25 for offer in filled]))
    asked = content_words(question) or frozenset(words(question))
    covered, absent = _coverage(asked, pool)
    ranks = _falling(covered)
    others = cosines[1:]
    return np.array(
        [
            cosines[0],
            _lead(cosines),
            (cosines[0] - others.mean()) / (others.std() + 0.01),
            scores[0] / math.sqrt(len(asked) + 1),
            _lead(scores) / (scores[0] + 1.0),
            ranks[0],
            _lead(ranks),
            covered[0],
            _agreement(pool),
            absent,
            math.log1p(len(asked)),
        ]
    )


def _coverage(asked: frozenset[str], pool: Sequence[Passage]) -> tuple[Signals, float]:
    """The share of the question's words that each passage holds, and that none does.

    A word counts the more, the fewer of the passages hold it.
    """
    held = [asked & content_words(f"{p.title} {p.text}") for p in pool]
    counts = Counter(word for some in held for word in some)
    rarity = {word: math.log(1 + len(pool) / (counts[word] + 0.5)) for word in asked}
    total = sum(rarity.values()) or 1.0
    shares = np.array([sum(rarity[word] for word in some) / total for some in held])
    return shares, sum(rarity[word] for word in asked if not counts[word]) / total


def _agreement(pool: Sequence[Passage]) -> float:
    """1 where words and meaning prefer the same passage, 1/2 where it is the other's second ..."""
    worded = max(range(len(pool)), key=lambda place: pool[place].bm25)
    ahead = sum(passage.similarity > pool[worded].similarity for passage in pool)
    return 1.0 / (1.0 + ahead)


def _falling(values: npt.NDArray[np.floating], filler: float = 0.0) -> Signals:
    filled = np.full(max(POOL, len(values)), filler)
    filled[: len(values)] = values
    return np.sort(filled)[::-1]


def _lead(falling: Signals) -> float:
    return float(falling[0] - falling[_NEXT].mean())


@cache
def _model() -> _Model:
    kept = json.loads(files("retrieval").joinpath(_FILE).read_text("utf-8"))
    weights = np.array([kept["weights"][name] for name in SIGNALS])
    return _Model(weights, kept["bias"], kept["threshold"])
