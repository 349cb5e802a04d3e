"""Findings of several collections: each as if searched alone, and joined into one answer's."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from retrieval import Document, Index, InvalidName, InvalidQuery
from retrieval.finding import NOTHING, Finding, best_of
from retrieval.passage import Passage

TEXTS = {
    "fruit": ["apple pear plum", "apple tart recipe", "plum jam jar", "pear tree garden"],
    "tools": ["hammer nail wood", "saw wood bench", "apple of the hammer"],
}


def vectors(texts: Sequence[str]) -> npt.NDArray[np.float32]:
    rows = []
    for text in texts:
        total = np.zeros(64)
        for word in text.casefold().split():
            seed = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=4).digest(), "big")
            total += np.random.default_rng(seed).normal(size=64)
        rows.append(total / max(float(np.linalg.norm(total)), 1e-9))
    return np.asarray(rows, dtype=np.float32)


@pytest.fixture
def index(tmp_path: Path) -> Index:
    opened = Index(tmp_path, vectors)
    for name, texts in TEXTS.items():
        opened.add(name, [Document(f"{name}-{n}", f"T{n}", text) for n, text in enumerate(texts)])
    return opened


@pytest.mark.parametrize("query", ["apple tart", "wood", "nothing of it"])
@pytest.mark.parametrize("top_k", [1, 2, 10])
def test_each_collection_is_found_as_a_search_in_it_alone_finds_it(
    index: Index, query: str, top_k: int
) -> None:
    found = index.survey(query, None, ["fruit", "tools", "fruit"], top_k)
    assert [one.collection for one in found] == ["fruit", "tools"]
    for one in found:
        assert list(one.passages) == index.search(query, None, [one.collection], top_k)
        everything = index.search(query, None, [one.collection], 10)
        closest = max(passage.similarity for passage in everything)
        assert one.similarity == pytest.approx(closest, abs=1e-6)


def test_a_vector_is_taken_in_place_of_the_text(index: Index) -> None:
    (found,) = index.survey("wood", vectors(["apple tart recipe"])[0], ["fruit"], 4)
    by_hand = vectors([f"T{n}\n{text}" for n, text in enumerate(TEXTS["fruit"])])
    expected = float((by_hand @ vectors(["apple tart recipe"])[0]).max())
    assert found.similarity == pytest.approx(expected, abs=1e-5)


def test_collections_that_do_not_exist_are_left_out(index: Index) -> None:
    assert [one.collection for one in index.survey("wood", None, ["gone", "tools"], 1)] == ["tools"]


def test_an_emptied_collection_has_nothing(index: Index) -> None:
    for number in range(len(TEXTS["tools"])):
        index.remove("tools", f"tools-{number}")
    assert index.survey("wood", None, ["tools"], 2) == [Finding("tools", NOTHING, ())]


def test_wrong_names_and_counts_are_refused(index: Index) -> None:
    with pytest.raises(InvalidName):
        index.survey("wood", None, ["No Name"], 1)
    with pytest.raises(InvalidQuery):
        index.survey("wood", None, ["tools"], 0)


def passage(name: str, similarity: float, bm25: float, collection: str = "c") -> Passage:
    return Passage(name, name, collection, name, "", name, 0, 1, 0.5, similarity, bm25)


def test_passages_of_one_finding_stay_as_they_were_ranked() -> None:
    one = Finding("c", 0.9, (passage("a", 0.1, 0.0), passage("b", 0.9, 5.0)))
    assert best_of([one, Finding("d", NOTHING, ())], 5) == list(one.passages)
    assert best_of([one], 1) == [one.passages[0]]
    assert best_of([], 3) == []


def test_several_are_fused_by_their_ranks() -> None:
    first = Finding("c", 0.9, (passage("a", 0.9, 2.0), passage("b", 0.2, 0.0)))
    other = Finding("d", 0.8, (passage("x", 0.8, 7.0, "d"), passage("y", 0.1, 1.0, "d")))
    found = best_of([first, other], 3)
    scores = {
        "a": 1 / 62 + 1 / 61,
        "b": 1 / 63,
        "x": 1 / 61 + 1 / 62,
        "y": 1 / 63 + 1 / 64,
    }
    assert [one.title for one in found] == ["x", "a", "y"]
    for one in found:
        assert one.score == pytest.approx(scores[one.title] / (2 / 61))
    assert replace(found[0], score=0.5) == other.passages[0]
