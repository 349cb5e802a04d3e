from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from test_retrieval_index import FRUIT, bag_of_words
from tiny_models import bert, xlm_roberta
from tokenizers import Tokenizer
from transformers import PreTrainedModel

from retrieval import CrossEncoder, Document, Index, InvalidEncoder
from retrieval.reranking import RERANKED

QUERY = "how do i prune a cherry tree"
PASSAGES = ["prune the tree im sommer", "木 を 切る", "a cherry", "tree " * 200, ""]


@pytest.mark.parametrize("make", [bert, xlm_roberta])
def test_scores_equal_transformers_one_by_one(
    make: Callable[[Path, int], PreTrainedModel], tmp_path: Path
) -> None:
    model = make(tmp_path, 1)
    scores = CrossEncoder(tmp_path).score(QUERY, PASSAGES)
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    tokenizer.enable_truncation(78 if make is xlm_roberta else 80)
    assert scores.shape == (5,)
    for passage, score in zip(PASSAGES, scores, strict=True):
        encoded = tokenizer.encode(QUERY, passage)
        inputs = {"input_ids": torch.tensor([encoded.ids])}
        if make is bert:
            inputs["token_type_ids"] = torch.tensor([encoded.type_ids])
        with torch.no_grad():
            expected = float(model(**inputs).logits[0, 0])
        assert score == pytest.approx(expected, abs=1e-5)


def test_a_classifier_with_several_outputs_is_refused(tmp_path: Path) -> None:
    bert(tmp_path, 3)
    with pytest.raises(InvalidEncoder, match="3 outputs"):
        CrossEncoder(tmp_path)


def test_a_folder_without_safetensors_is_refused(tmp_path: Path) -> None:
    bert(tmp_path, 1)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(InvalidEncoder, match=r"not a cross-encoder: model\.safetensors is missing"):
        CrossEncoder(tmp_path)


class Contrary:
    """Prefers passages in the order of a list of words, and notes what it was shown."""

    def __init__(self, *words: str) -> None:
        self.words = words
        self.shown: list[str] = []

    def score(self, query: str, passages: Sequence[str]) -> npt.NDArray[np.float32]:
        self.shown = list(passages)
        ranks = [
            next((rank for rank, word in enumerate(self.words) if word in text), len(self.words))
            for text in passages
        ]
        return -np.array(ranks, dtype=np.float32)


def test_the_judge_decides_the_order_and_scores_keep_falling(tmp_path: Path) -> None:
    Index(tmp_path, bag_of_words).add("fruit", FRUIT)
    plain = Index(tmp_path, bag_of_words).search("ripe cherries", None, ["fruit"], 3)
    judge = Contrary("Bananas", "Apples", "Cherries")
    found = Index(tmp_path, bag_of_words, reranker=judge).search(
        "ripe cherries", None, ["fruit"], 3
    )
    assert [hit.document_id for hit in plain][0] == "cherry"
    assert [hit.document_id for hit in found] == ["banana", "apple", "cherry"]
    assert [hit.score for hit in found] == [hit.score for hit in plain]
    by_id = {hit.document_id: hit for hit in plain}
    for hit in found:
        assert (hit.bm25, hit.similarity) == (
            by_id[hit.document_id].bm25,
            by_id[hit.document_id].similarity,
        )
    assert "Bananas\nBananas grow in bunches in the tropics." in judge.shown


def test_only_the_top_is_judged(tmp_path: Path) -> None:
    judge = Contrary()
    index = Index(tmp_path, bag_of_words, reranker=judge)
    index.add("many", [Document(f"d{n}", "", f"tree number {n}") for n in range(60)])
    assert len(index.search("tree", None, ["many"], 40)) == 40
    assert len(judge.shown) == RERANKED
