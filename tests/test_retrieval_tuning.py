import math
from pathlib import Path

import numpy as np
import pytest
from test_retrieval_index import bag_of_words

from retrieval import Document, Index, InvalidQuery, Labelled, SearchSettings
from retrieval.candidates import Candidates
from retrieval.measures import hit, ndcg, reciprocal_rank
from retrieval.tuning import WEIGHTS, tune

PLANTS = ["apple", "banana", "cherry", "date", "elder", "fig", "grape", "hazel", "iris", "juniper"]


def test_ndcg_equals_a_hand_computation() -> None:
    # Relevant at ranks 2 and 4 of two: (1/log2(3) + 1/log2(5)) / (1/log2(2) + 1/log2(3)).
    expected = (1 / math.log2(3) + 1 / math.log2(5)) / (1 + 1 / math.log2(3))
    assert ndcg(["x", "a", "y", "b"], {"a", "b"}, 10) == pytest.approx(expected)
    assert ndcg(["x", "a", "y", "b"], {"a", "b"}, 2) == pytest.approx(
        (1 / math.log2(3)) / (1 + 1 / math.log2(3))
    )
    assert ndcg(["a"], {"a", "b"}, 1) == 1.0
    assert ndcg([], {"a"}, 10) == ndcg(["a"], set(), 10) == 0.0


def test_hits_and_reciprocal_ranks_count_to_their_depth() -> None:
    assert (hit(["x", "a"], {"a"}, 1), hit(["x", "a"], {"a"}, 2)) == (0.0, 1.0)
    assert reciprocal_rank(["x", "y", "a"], {"a"}, 10) == pytest.approx(1 / 3)
    assert reciprocal_rank(["x", "y", "a"], {"a"}, 2) == 0.0


def candidates(query: str) -> Candidates:
    # The right passage is best by its words and worst by its vector.
    right = PLANTS.index(query.split()[0])
    keys = list(range(len(PLANTS)))
    bm25 = np.array([5.0 if key == right else 4.0 * (key % 2) for key in keys])
    similarity = np.array([-0.5 if key == right else 0.1 * key for key in keys])
    return Candidates(keys, bm25, similarity, 0.9)


def documents(keys: object) -> dict[int, str]:
    return dict(enumerate(PLANTS))


def test_tuning_finds_the_side_that_is_right() -> None:
    labelled = [Labelled(f"{plant} {n}", frozenset({plant})) for plant in PLANTS for n in (1, 2)]
    found = tune(labelled, candidates, documents, usual=0.6)
    curve = dict(found.curve)
    assert tuple(curve) == WEIGHTS
    assert curve[0.0] == 1.0 > curve[1.0]
    assert found.weight < 0.6
    assert found.tuned == 1.0 > found.plain
    assert found.worthwhile
    assert tune(labelled, candidates, documents, usual=0.6) == found


def test_equally_good_weights_give_way_to_the_usual_one() -> None:
    def only_one(query: str) -> Candidates:
        return Candidates([0], np.array([1.0]), np.array([0.5]), None)

    labelled = [Labelled(f"q{n}", frozenset({"apple"})) for n in range(10)]
    found = tune(labelled, only_one, documents, usual=0.3)
    assert (found.weight, found.tuned, found.plain) == (0.3, 1.0, 1.0)


def test_too_few_questions_are_refused(tmp_path: Path) -> None:
    index = Index(tmp_path, bag_of_words)
    index.add("plants", [Document(name, name, f"The {name} grows.") for name in PLANTS])
    with pytest.raises(InvalidQuery, match="at least 10 labelled questions, not 2"):
        index.tune("plants", [Labelled("apple", frozenset({"apple"}))] * 2)


def test_a_collection_keeps_its_weight_and_open_readers_follow(tmp_path: Path) -> None:
    def misleading(texts: list[str]) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
        # Questions ("... please") point away from the passage that answers them.
        signs = np.array([-1.0 if text.endswith("please") else 1.0 for text in texts])
        vectors: np.ndarray[tuple[int, int], np.dtype[np.float32]] = (
            bag_of_words([text.removesuffix(" please") for text in texts]) * signs[:, None]
        ).astype(np.float32)
        return vectors

    settings = SearchSettings(dense_weight=1.0)
    index = Index(tmp_path, misleading, settings)
    index.add("plants", [Document(name, "", f"{name}") for name in PLANTS])
    reader = Index(tmp_path, misleading, settings)

    def first(of: Index) -> str:
        return of.search("fig please", None, ["plants"], 1)[0].document_id

    assert first(reader) != "fig"
    labelled = [Labelled(f"{name} please", frozenset({name})) for name in PLANTS]
    dry = index.tune("plants", labelled, keep=False)
    assert first(reader) != "fig"
    assert index.tune("plants", labelled) == dry
    assert dry.weight <= 0.5
    assert first(reader) == first(index) == "fig"
    assert first(Index(tmp_path, misleading, settings)) == "fig"
    index.untune("plants")
    assert first(reader) != "fig"
