from pathlib import Path

import numpy as np
import pytest
from test_retrieval_index import bag_of_words

from retrieval import Document, Index, SearchSettings
from retrieval.diversity import distinct, diverse

VECTORS = np.array([[1, 0], [0.96, 0.28], [0, 1], [0.6, 0.8]], dtype=np.float32)


def test_marginal_relevance_equals_a_hand_computation() -> None:
    # Half and half: after the first, 0.45 - 0.48, 0.25 - 0, 0.4 - 0.3 are left; then, beside the
    # third, 0.45 - 0.48 and 0.4 - 0.4.
    assert diverse([1.0, 0.9, 0.5, 0.8], VECTORS, 0.5, 4) == [0, 2, 3, 1]
    assert diverse([1.0, 0.9, 0.5, 0.8], VECTORS, 0.5, 2) == [0, 2]


def test_relevance_alone_leaves_the_order() -> None:
    assert diverse([0.9, 0.5, 0.4, 0.1], VECTORS, 1.0, 3) == [0, 1, 2]
    assert diverse([0.9, 0.5, 0.4, 0.1], VECTORS, 1.0, 9) == [0, 1, 2, 3]


def test_only_equal_texts_are_repeats() -> None:
    texts = ["Within 10 days.", "Within 20 days.", "within\n 10  DAYS.", "Within 10 days"]
    assert distinct(texts) == [0, 1, 3]


def test_the_same_text_under_two_ids_is_found_once(tmp_path: Path) -> None:
    index = Index(tmp_path, bag_of_words)
    copies = [Document(f"c{n}", "Notice", "Rent is due on the first day.") for n in range(6)]
    index.add("law", [*copies, Document("other", "Rent", "Rent may rise once a year.")])
    index.add("copy", copies[:1])
    found = index.search("when is rent due", None, ["law", "copy"], 3)
    assert [hit.text for hit in found] == [
        "Rent is due on the first day.",
        "Rent may rise once a year.",
    ]


@pytest.mark.parametrize(("relevance", "second"), [(1.0, "b"), (0.5, "c")])
def test_a_setting_prefers_what_adds_to_the_first(
    tmp_path: Path, relevance: float, second: str
) -> None:
    index = Index(tmp_path, bag_of_words, SearchSettings(relevance=relevance, dense_weight=0.5))
    index.add(
        "garden",
        [
            Document("a", "", "prune cherry trees in dry summer weather"),
            Document("b", "", "prune cherry trees in dry summer weather today"),
            Document("c", "", "cherry wounds are painted with wax"),
        ],
    )
    found = index.search("prune cherry trees in dry summer weather", None, ["garden"], 2)
    assert [hit.document_id for hit in found] == ["a", second]
