import numpy as np
import pytest

from retrieval import Fusion, fuse
from retrieval.candidates import Candidates, ranked
from retrieval.fusion import convex


def test_fusion_equals_a_hand_computation() -> None:
    fused = fuse([["a", "b", "c"], ["c", "a", "d"]])
    best = 2 / 61
    expected = {
        "a": (1 / 61 + 1 / 62) / best,
        "c": (1 / 63 + 1 / 61) / best,
        "b": (1 / 62) / best,
        "d": (1 / 63) / best,
    }
    assert [item for item, _ in fused] == ["a", "c", "b", "d"]
    assert dict(fused) == pytest.approx(expected)


def test_first_everywhere_scores_one_and_first_once_a_half() -> None:
    assert fuse([["a"], ["a"]]) == [("a", pytest.approx(1.0))]
    assert fuse([["a"], []]) == [("a", pytest.approx(0.5))]


def test_equal_scores_keep_the_order_of_the_rankings() -> None:
    assert [item for item, _ in fuse([["a", "b"], ["b", "a"]])] == ["a", "b"]
    assert [item for item, _ in fuse([["b", "a"], ["a", "b"]])] == ["b", "a"]


def test_nothing_fuses_to_nothing() -> None:
    assert fuse([[], []]) == []
    assert fuse([]) == []


def offer(rows: dict[int, tuple[float, float]], weight: float | None = None) -> Candidates:
    return Candidates(
        list(rows),
        np.array([bm25 for bm25, _ in rows.values()]),
        np.array([similarity for _, similarity in rows.values()]),
        weight,
    )


def test_convex_fusion_equals_a_hand_computation() -> None:
    # Cosines run from -1, BM25 from 0; the largest met are 0.6 and 8.
    found = ranked([offer({1: (8.0, 0.2), 2: (4.0, 0.6), 3: (0.0, -1.0)})], Fusion.CONVEX, 0.7, 50)
    expected = {1: 0.7 * 1.2 / 1.6 + 0.3, 2: 0.7 + 0.3 * 0.5, 3: 0.0}
    assert [at.key for at in found] == [2, 1, 3]
    assert {at.key: at.score for at in found} == pytest.approx(expected)


def test_where_no_word_matches_meaning_alone_ranks() -> None:
    found = ranked([offer({1: (0.0, 0.1), 2: (0.0, 0.5)})], Fusion.CONVEX, 0.4, 50)
    assert [(at.key, at.score) for at in found] == [
        (2, pytest.approx(0.4)),
        (1, pytest.approx(0.4 * 1.1 / 1.5)),
    ]


def test_collections_with_weights_of_their_own_share_one_scale() -> None:
    words = offer({1: (10.0, 0.0), 2: (1.0, 0.9)}, weight=0.0)
    meaning = offer({1: (10.0, 0.0), 2: (1.0, 0.9)}, weight=1.0)
    plain = offer({1: (10.0, 0.0)})
    found = ranked([words, meaning, plain], Fusion.CONVEX, 0.5, 50)
    expected = {
        (0, 1): 1.0,
        (0, 2): 0.1,
        (1, 1): 1.0 / 1.9,
        (1, 2): 1.0,
        (2, 1): 0.5 * 1.0 / 1.9 + 0.5,
    }
    assert {(at.place, at.key): at.score for at in found} == pytest.approx(expected)
    assert found[0].score == found[1].score == 1.0


def test_reciprocal_ranks_are_those_of_both_measures() -> None:
    rows = {1: (5.0, 0.1), 2: (0.0, 0.9), 3: (3.0, 0.5)}
    found = ranked([offer(rows)], Fusion.RECIPROCAL, 0.5, 50)
    assert [(at.key, at.score) for at in found] == [
        (key, pytest.approx(score)) for key, score in fuse([[1, 3], [2, 3, 1]])
    ]


def test_scores_stay_within_0_and_1_whatever_comes() -> None:
    random = np.random.default_rng(3)
    for _ in range(200):
        count = int(random.integers(1, 9))
        bm25 = random.exponential(5, count) * random.integers(0, 2, count)
        scores = convex(random.uniform(-1, 1, count), bm25, random.uniform(0, 1))
        assert ((scores >= 0) & (scores <= 1)).all()
    assert convex(np.array([]), np.array([]), 0.5).shape == (0,)
