"""Findings of several collections, joined into what a search in just these would have found."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Iterator, Sequence
from itertools import chain, combinations
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pytest

from retrieval import Document, Fusion, Index, InvalidName, InvalidQuery, SearchSettings
from retrieval.candidates import Candidates, contenders, ranked
from retrieval.finding import NOTHING, Finding, best_of
from retrieval.passage import Passage
from retrieval.tuned_weight import FUSION_NOTE, weight_note

TEXTS = {
    "fruit": ["apple pear plum", "apple tart recipe", "plum jam jar", "pear tree garden"],
    "tools": ["hammer nail wood", "saw wood bench", "apple of the hammer"],
    "trees": ["pear wood", "plum wood saw", "apple wood apple tree", "garden bench"],
}
QUERIES = ["apple tart", "wood", "nothing of it", "plum garden bench"]
Name = TypeVar("Name")
WAYS = [
    SearchSettings(),
    SearchSettings(dense_weight=0.3),
    SearchSettings(fusion=Fusion.RECIPROCAL),
    SearchSettings(relevance=0.5, dense_weight=0.5),
]


def vectors(texts: Sequence[str]) -> npt.NDArray[np.float32]:
    rows = []
    for text in texts:
        total = np.zeros(64)
        for word in text.casefold().split():
            seed = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=4).digest(), "big")
            total += np.random.default_rng(seed).normal(size=64)
        rows.append(total / max(float(np.linalg.norm(total)), 1e-9))
    return np.asarray(rows, dtype=np.float32)


def opened(folder: Path, settings: SearchSettings | None = None) -> Index:
    made = Index(folder, vectors, settings)
    for name, texts in TEXTS.items():
        made.add(
            name,
            [
                Document(f"{name}-{n}", f"T{n}", text, lang="en" if n % 2 else "de")
                for n, text in enumerate(texts)
            ],
        )
    return made


@pytest.fixture
def index(tmp_path: Path) -> Index:
    return opened(tmp_path)


def subsets(names: Sequence[Name]) -> Iterator[tuple[Name, ...]]:
    return chain.from_iterable(combinations(names, n) for n in range(1, len(names) + 1))


@pytest.mark.parametrize("settings", WAYS)
@pytest.mark.parametrize("top_k", [1, 2, 10])
def test_any_of_the_findings_give_what_a_search_in_their_collections_gives(
    tmp_path: Path, settings: SearchSettings, top_k: int
) -> None:
    index = opened(tmp_path, settings)
    index._note("trees", FUSION_NOTE, weight_note(0.1))
    for query in QUERIES:
        found = index.survey(query, None, ["fruit", "tools", "fruit", "trees"], top_k)
        assert [one.collection for one in found] == ["fruit", "tools", "trees"]
        for names in subsets(list(TEXTS)):
            own = [one for one in found if one.collection in names]
            assert best_of(own, top_k, settings) == index.search(query, None, names, top_k)


@pytest.mark.parametrize("query", QUERIES)
def test_passages_of_several_collections_have_exact_scores_on_one_scale(
    index: Index, query: str
) -> None:
    found = index.survey(query, None, ["fruit", "tools", "trees"], 2)
    for names in subsets(list(TEXTS)):
        cosines = {
            f"{name}-{n}": float((vectors([f"T{n}\n{text}"]) @ vectors([query])[0])[0])
            for name in names
            for n, text in enumerate(TEXTS[name])
        }
        every = index.search(query, None, names, 50)
        largest = max(hit.bm25 for hit in every) or 1.0
        scores = {
            hit.document_id: 0.85 * (cosines[hit.document_id] + 1) / (max(cosines.values()) + 1)
            + 0.15 * hit.bm25 / largest
            for hit in every
        }
        assert scores.keys() == cosines.keys()
        own = [one for one in found if one.collection in names]
        best = best_of(own, 2, SearchSettings())
        expected = sorted(scores, key=lambda one: -scores[one])[:2]
        assert [hit.document_id for hit in best] == expected
        assert [hit.score for hit in best] == pytest.approx([scores[one] for one in expected])


@pytest.mark.parametrize("query", QUERIES)
def test_the_closest_passage_of_each_collection_is_told(index: Index, query: str) -> None:
    for one in index.survey(query, None, list(TEXTS), 1):
        texts = [f"T{n}\n{text}" for n, text in enumerate(TEXTS[one.collection])]
        closest = float((vectors(texts) @ vectors([query])[0]).max())
        assert one.similarity == pytest.approx(closest, abs=1e-5)


def test_a_filter_limits_what_is_told_and_found(index: Index) -> None:
    found = index.survey("apple tart", None, ["fruit", "tools"], 9, {"lang": "de"})
    cosines = vectors([f"T{n}\n{TEXTS['fruit'][n]}" for n in (0, 2)]) @ vectors(["apple tart"])[0]
    assert found[0].similarity == pytest.approx(float(cosines.max()), abs=1e-5)
    hits = best_of(found, 9, SearchSettings())
    assert {hit.document_id for hit in hits} == {"fruit-0", "fruit-2", "tools-0", "tools-2"}
    (nothing,) = index.survey("apple tart", None, ["fruit"], 9, {"lang": "fr"})
    assert nothing.similarity == NOTHING
    assert best_of([nothing], 9, SearchSettings()) == []
    with pytest.raises(InvalidQuery):
        index.survey("apple tart", None, ["fruit"], 9, {"colour": "red"})


class Judge:
    """Prefers the longest texts, and notes what it was shown."""

    def __init__(self) -> None:
        self.shown: list[str] = []

    def score(self, query: str, passages: Sequence[str]) -> npt.NDArray[np.float32]:
        self.shown += passages
        return np.array([len(text) for text in passages], dtype=np.float32)


def test_a_judge_reads_the_best_of_all_once_and_orders_any_of_them(tmp_path: Path) -> None:
    opened(tmp_path)
    judge = Judge()
    index = Index(tmp_path, vectors, reranker=judge)
    found = index.survey("apple wood", None, list(TEXTS), 3)
    assert len(judge.shown) == len(set(judge.shown)) == 11
    for names in subsets(list(TEXTS)):
        own = [one for one in found if one.collection in names]
        hits = best_of(own, 3, SearchSettings())
        assert hits == index.search("apple wood", None, names, 3)
        longest = sorted((len(text) for name in names for text in TEXTS[name]), reverse=True)
        assert [len(hit.text) for hit in hits] == longest[:3]
        assert [hit.score for hit in hits] == sorted((h.score for h in hits), reverse=True)


def test_a_vector_is_taken_in_place_of_the_text(index: Index) -> None:
    (found,) = index.survey("wood", vectors(["apple tart recipe"])[0], ["fruit"], 4)
    by_hand = vectors([f"T{n}\n{text}" for n, text in enumerate(TEXTS["fruit"])])
    expected = float((by_hand @ vectors(["apple tart recipe"])[0]).max())
    assert found.similarity == pytest.approx(expected, abs=1e-5)


def test_collections_that_do_not_exist_are_left_out(index: Index) -> None:
    assert [one.collection for one in index.survey("wood", None, ["gone", "tools"], 1)] == ["tools"]
    assert index.survey("wood", None, ["gone"], 1) == []


def test_an_emptied_collection_has_nothing(index: Index) -> None:
    for number in range(len(TEXTS["tools"])):
        index.remove("tools", f"tools-{number}")
    empty, full = index.survey("wood", None, ["tools", "fruit"], 2)
    assert (empty.similarity, empty.sightings) == (NOTHING, ())
    assert best_of([empty], 2, SearchSettings()) == []
    assert best_of([empty, full], 2, SearchSettings()) == best_of([full], 2, SearchSettings())
    assert best_of([], 2, SearchSettings()) == []


def test_wrong_names_and_counts_are_refused(index: Index) -> None:
    with pytest.raises(InvalidName):
        index.survey("wood", None, ["No Name"], 1)
    with pytest.raises(InvalidQuery):
        index.survey("wood", None, ["tools"], 0)


def test_findings_are_sent_from_process_to_process(index: Index) -> None:
    found: list[Finding] = index.survey("apple wood", None, list(TEXTS), 3)
    sent = pickle.loads(pickle.dumps(found))
    hits: list[Passage] = best_of(sent, 3, SearchSettings())
    assert len(hits) == 3
    assert hits == best_of(found, 3, SearchSettings())


@pytest.mark.parametrize("fusion", list(Fusion))
def test_no_contender_is_left_out_whatever_collections_join(fusion: Fusion) -> None:
    random = np.random.default_rng(11)
    left_out = 0
    for _ in range(60):
        offers = []
        for size in random.integers(0, 40, 3).tolist():
            worded = random.integers(0, 2, size) * random.exponential(8.0 ** random.uniform(-1, 1))
            weight = None if random.integers(0, 2) else float(random.uniform())
            cosines = random.uniform(-1.0, random.uniform(-0.9, 0.9), size)
            words = random.exponential(1.0, size) * worded
            offers.append(Candidates(list(range(size)), words, cosines, weight))
        kept = [contenders(offer, offers, fusion, 0.6, 5) for offer in offers]
        left_out += sum(len(o.keys) for o in offers) - sum(len(keys) for keys in kept)
        for places in subsets([0, 1, 2]):
            for at in ranked([offers[p] for p in places], fusion, 0.6, 30, 5):
                assert at.key in kept[places[at.place]]
    assert left_out > 500
