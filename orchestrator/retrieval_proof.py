"""How good search is on quizzes: each half alone, both fused, tuned; by collection and language."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from orchestrator.quiz import Quiz, read_documents
from retrieval.document import Document
from retrieval.evaluation import MEASURES, MILLISECONDS, Gains, Shelf, gains, ways
from retrieval.index import Index
from retrieval.search_settings import SearchSettings
from router.intervals import Macro, bootstrap, mean_interval
from router.trials import Indices

Progress = Callable[[str, int, int], None]

SUMMED = ("hit@5", "recall@10", "mrr@10", "ndcg@10")
"""The measures that summaries over collections hold."""

ENGLISH = "en"


@dataclass(frozen=True, slots=True)
class Draws:
    """How intervals are made: resamples of the questions, drawn by a seed."""

    resamples: int = 1000
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Searched:
    """One collection's questions with what every way of searching was worth on them.

    `gains` are by way and measure, [n]; `groups` [n] are languages, `english` says that all its
    questions are English.
    """

    quiz: Quiz
    weight: float | None
    curve: tuple[tuple[float, float], ...]
    gains: Mapping[str, Mapping[str, Gains]]

    @property
    def groups(self) -> list[str]:
        """The group of each question."""
        return [asked.group for asked in self.quiz.reported]

    @property
    def english(self) -> bool:
        """Whether the collection is English: whoever asks in its language asks in English."""
        return {asked.lang for asked in self.quiz.reported if not asked.across} == {ENGLISH}


def fill(shelf: Shelf, quizzes: Sequence[Quiz], progress: Progress) -> None:
    """Put the documents of quizzes into collections; what is there already is left as it is."""
    index = shelf.open(SearchSettings())
    try:
        for quiz in quizzes:
            if quiz.documents is not None:
                put(index, quiz.collection, list(read_documents(quiz.documents)), progress)
    finally:
        index.close()


def put(index: Index, collection: str, documents: Sequence[Document], progress: Progress) -> None:
    """Add documents to a collection, and tell how many are in."""

    def tell(done: int) -> None:
        progress(f"encode {collection}", done, len(documents))

    index.add(collection, documents, tell)


def search(shelf: Shelf, quiz: Quiz, settings: SearchSettings, progress: Progress) -> Searched:
    """Tune on one half of the questions and measure every way on the other."""
    vectors = shelf.questions([asked.query for asked in quiz.reported])
    labelled = [asked.labelled for asked in quiz.reported]
    weight, curve = _tuned(shelf, quiz, settings)
    found: dict[str, Mapping[str, Gains]] = {}
    compared = ways(settings, weight)
    for done, (way, how) in enumerate(compared.items(), start=1):
        index = shelf.open(how)
        try:
            found[way] = gains(index, quiz.collection, labelled, vectors)
        finally:
            index.close()
        progress(f"search {quiz.collection}", done, len(compared))
    return Searched(quiz, weight, curve, found)


def figures(searched: Sequence[Searched], draws: Draws) -> dict[str, Any]:
    """Return the figures of all collections: by language, and over collections."""
    return {
        "resamples": draws.resamples,
        "seed": draws.seed,
        "collections": {one.quiz.collection: _collection(one, draws) for one in searched},
        "summary": dict(_summaries(searched, draws)),
    }


def _tuned(
    shelf: Shelf, quiz: Quiz, settings: SearchSettings
) -> tuple[float | None, tuple[tuple[float, float], ...]]:
    if not quiz.tuning:
        return None, ()
    index = shelf.open(settings)
    try:
        tuning = index.tune(quiz.collection, [a.labelled for a in quiz.tuning], keep=False)
    finally:
        index.close()
    return tuning.weight, tuning.curve


def _collection(one: Searched, draws: Draws) -> dict[str, Any]:
    return {
        "questions": len(one.quiz.asked),
        "reported": len(one.quiz.reported),
        "weight": one.weight,
        "curve": one.curve,
        "groups": {
            group: _group(one, [at for at, own in enumerate(one.groups) if own == group], draws)
            for group in sorted(set(one.groups))
        },
    }


def _group(one: Searched, rows: Sequence[int], draws: Draws) -> dict[str, Any]:
    strata = [""] * len(rows)
    found: dict[str, Any] = {}
    for way, measured in one.gains.items():
        found[way] = {
            name: asdict(mean_interval(measured[name][rows], strata, draws.resamples, draws.seed))
            for name in MEASURES
        }
        found[way]["p50_ms"] = float(np.median(measured[MILLISECONDS][rows]))
    return {"questions": len(rows), "ways": found}


def _summaries(searched: Sequence[Searched], draws: Draws) -> Iterator[tuple[str, Any]]:
    picked = {
        "english": [
            (one, [at for at, asked in enumerate(one.quiz.reported) if not asked.across])
            for one in searched
            if one.english
        ],
        "other_languages": [
            (one, _where(one, lambda asked: not asked.across and asked.lang not in ("", ENGLISH)))
            for one in searched
        ],
        "across_languages": [(one, _where(one, lambda asked: asked.across)) for one in searched],
    }
    for name, parts in picked.items():
        filled = [(one, rows) for one, rows in parts if rows]
        yield name, _summary(filled, draws) if filled else None


def _where(one: Searched, wanted: Callable[[Any], bool]) -> list[int]:
    return [at for at, asked in enumerate(one.quiz.reported) if wanted(asked)]


def _summary(parts: Sequence[tuple[Searched, Sequence[int]]], draws: Draws) -> dict[str, Any]:
    """Means over collections of their means, with intervals, and what fusing is worth."""
    strata = [one.quiz.collection for one, rows in parts for _ in rows]
    macro = Macro(strata)
    shared = [way for way in parts[0][0].gains if all(way in one.gains for one, _ in parts)]
    joined = {
        way: {
            name: np.concatenate([one.gains[way][name][rows] for one, rows in parts])
            for name in SUMMED
        }
        for way in shared
    }
    drawn = strata, draws.resamples, draws.seed
    found = {
        way: {
            name: asdict(bootstrap(partial(macro, values), *drawn))
            for name, values in measured.items()
        }
        for way, measured in joined.items()
    }

    def gain(rows: Indices) -> float:
        worth = {way: macro(joined[way]["ndcg@10"], rows) for way in shared}
        alone = max(worth["words"], worth["meaning"])
        return worth.get("tuned", worth["fused"]) / alone if alone else 1.0

    return {
        "collections": [one.quiz.collection for one, _ in parts],
        "questions": len(strata),
        "ways": found,
        "gain": asdict(bootstrap(gain, *drawn)),
    }
