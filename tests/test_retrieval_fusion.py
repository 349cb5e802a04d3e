import pytest

from retrieval import fuse


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
