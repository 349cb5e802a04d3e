import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import bert, pooled_by, xlm_roberta
from tokenizers import Tokenizer

from retrieval import Document, Encoder, Index, InvalidEncoder

TEXTS = ["how do i prune a cherry tree", "der baum im sommer", "木 を 切る", "a", "tree " * 90]
MAKERS = [bert, xlm_roberta]


def by_transformers(
    model: torch.nn.Module, folder: Path, text: str, pooling: str
) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(64)
    ids = torch.tensor([tokenizer.encode(text).ids])
    with torch.no_grad():
        hidden = model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0]
    vector = (hidden[0] if pooling == "cls_token" else hidden.mean(0)).numpy()
    found: np.ndarray[tuple[int], np.dtype[np.float32]] = vector / np.linalg.norm(vector)
    return found


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("pooling", ["mean_tokens", "cls_token"])
def test_architectures_and_poolings_equal_transformers(
    make: Callable[[Path], torch.nn.Module], pooling: str, tmp_path: Path
) -> None:
    model = make(tmp_path)
    pooled_by(tmp_path, pooling)
    (tmp_path / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 64}))
    vectors = Encoder(tmp_path).encode(TEXTS)
    for text, vector in zip(TEXTS, vectors, strict=True):
        np.testing.assert_allclose(
            vector, by_transformers(model, tmp_path, text, pooling), atol=1e-5
        )


@pytest.mark.parametrize("given", ["folder", "arguments"])
def test_questions_and_passages_get_their_prefixes(tmp_path: Path, given: str) -> None:
    xlm_roberta(tmp_path)
    (tmp_path / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 64}))
    plain = Encoder(tmp_path)
    prefixes: dict[str, str] = {}
    if given == "folder":
        prompts = {"prompts": {"query": "query: ", "document": "passage: "}}
        (tmp_path / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    else:
        prefixes = {"query_prefix": "query: ", "passage_prefix": "passage: "}
    encoder = Encoder(tmp_path, **prefixes)
    for text in TEXTS[:3]:
        np.testing.assert_array_equal(encoder.encode([text]), plain.encode([f"query: {text}"]))
        np.testing.assert_array_equal(
            encoder.encode_passages([text]), plain.encode([f"passage: {text}"])
        )
    bare = Encoder(tmp_path, query_prefix="", passage_prefix="")
    np.testing.assert_array_equal(bare.encode(TEXTS[:3]), plain.encode_passages(TEXTS[:3]))


def test_an_index_embeds_questions_as_questions(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    xlm_roberta(folder)
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 64}))
    encoder = Encoder(folder, query_prefix="query: ", passage_prefix="passage: ")
    index = Index(tmp_path / "index", encoder.encode_passages, encode_query=encoder.encode)
    index.add("trees", [Document(str(n), "", text) for n, text in enumerate(TEXTS[:3])])
    plain = Encoder(folder, query_prefix="", passage_prefix="")
    passages = plain.encode([f"passage: {text}" for text in TEXTS[:3]])
    query = plain.encode(["query: baum"])[0]
    for hit in index.search("baum", None, ["trees"], 3):
        expected = float(passages[int(hit.document_id)] @ query)
        assert hit.similarity == pytest.approx(expected, abs=1e-5)


def test_a_model_with_a_layer_of_its_own_is_refused(tmp_path: Path) -> None:
    bert(tmp_path)
    kinds = ["Transformer", "Pooling", "Dense"]
    modules = [{"type": f"sentence_transformers.models.{kind}"} for kind in kinds]
    (tmp_path / "modules.json").write_text(json.dumps(modules[:2]))
    Encoder(tmp_path)
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(InvalidEncoder, match="module 'Dense'"):
        Encoder(tmp_path)
