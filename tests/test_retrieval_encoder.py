import json
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from retrieval import Document, Encoder, Index, InvalidEncoder, RetrievalError
from retrieval import errors as retrieval_errors
from retrieval.encoder import MAX_TOKENS
from retrieval.model_folder import BATCH_TOKENS, batches

TEXTS = [
    "A short text.",
    "",
    "Wie kündige ich einen Mietvertrag?",
    "合同 解除",
    "long " * 600,
    "The quick brown fox jumps over the lazy dog.",
]


@pytest.fixture(scope="module")
def encoder(encoder_dir: Path) -> Iterator[Encoder]:
    yield Encoder(encoder_dir)


@pytest.mark.models
def test_vectors_equal_transformers_one_by_one(encoder: Encoder, encoder_dir: Path) -> None:
    from transformers import AutoTokenizer, BertModel

    tokenizer = AutoTokenizer.from_pretrained(encoder_dir)
    model = BertModel.from_pretrained(encoder_dir).eval()
    vectors = encoder.encode(TEXTS)
    assert vectors.shape == (len(TEXTS), encoder.dimensions) == (6, 384)
    assert vectors.dtype == np.float32
    for text, vector in zip(TEXTS, vectors, strict=True):
        tokens = tokenizer(text, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
        with torch.no_grad():
            mean = model(**tokens).last_hidden_state[0].mean(0).numpy()
        np.testing.assert_allclose(vector, mean / np.linalg.norm(mean), atol=1e-5)


@pytest.mark.models
def test_no_texts_give_no_vectors(encoder: Encoder) -> None:
    assert encoder.encode([]).shape == (0, 384)


@pytest.mark.models
def test_lone_surrogates_are_no_obstacle(encoder: Encoder) -> None:
    assert np.isfinite(encoder.encode(["broken \ud800 text"])).all()


@pytest.mark.models
def test_the_number_of_torch_threads_is_left_alone(encoder: Encoder) -> None:
    before = torch.get_num_threads()
    encoder.encode(["text"])
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("count", [0, 1, 7, 128, 1000])
def test_batches_hold_every_text_once_within_their_bounds(count: int) -> None:
    lengths = np.random.default_rng(count).integers(2, 257, count).tolist()
    for device, padding in (("cpu", 64), ("cuda", BATCH_TOKENS)):
        found = list(batches(lengths, device))
        assert sorted(row for batch in found for row in batch) == list(range(len(lengths)))
        for batch in found:
            told = [lengths[row] for row in batch]
            width = max(told) * len(told)
            assert width <= BATCH_TOKENS
            assert width - sum(told) <= padding


def test_one_long_text_does_not_widen_the_short_ones() -> None:
    lengths = [16] * 15 + [52]
    assert list(batches(lengths, "cpu")) == [list(range(15)), [15]]
    # A GPU does them at once in the time of one.
    assert list(batches(lengths, "cuda")) == [list(range(16))]


@pytest.mark.models
def test_faiss_top_ten_equals_brute_force_on_real_vectors(encoder: Encoder, tmp_path: Path) -> None:
    subjects = ["lease", "copyright", "tuple", "thread", "recipe", "harbour", "violin", "tax"]
    texts = [f"{subject} question number {n}" for subject in subjects for n in range(6)]
    index = Index(tmp_path, encoder.encode)
    index.add("real", (Document(f"d{n}", "", text) for n, text in enumerate(texts)))
    table = encoder.encode(texts)
    for query in encoder.encode(["musical instruments", "rent a flat", "Python lists"]):
        hits = index.search("zzz", query, ["real"], 10)
        best = np.argsort(-(table @ query), kind="stable")[:10]
        np.testing.assert_allclose(
            [hit.similarity for hit in hits], (table @ query)[best], atol=1e-5
        )
        assert {hit.document_id for hit in hits[:9]} <= {f"d{row}" for row in best}


@pytest.mark.models
def test_other_poolings_are_refused_by_name(encoder_dir: Path, tmp_path: Path) -> None:
    for file in encoder_dir.iterdir():
        if file.is_file() and file.name != "model.safetensors":
            shutil.copy(file, tmp_path)
    (tmp_path / "model.safetensors").symlink_to(encoder_dir / "model.safetensors")
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text(
        json.dumps({"pooling_mode_max_tokens": True})
    )
    with pytest.raises(InvalidEncoder, match="pooling_mode_max_tokens"):
        Encoder(tmp_path)
    (tmp_path / "1_Pooling" / "config.json").write_text(
        json.dumps({"pooling_mode_cls_token": True})
    )
    first = Encoder(tmp_path).encode(["a text"])
    assert not np.allclose(first, Encoder(encoder_dir).encode(["a text"]), atol=1e-2)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InvalidEncoder, match=r"model\.safetensors, tokenizer\.json is missing"):
        Encoder(tmp_path)


def test_errors_pickle_and_share_a_root() -> None:
    kinds = [kind for kind in vars(retrieval_errors).values() if isinstance(kind, type)]
    assert len(kinds) == 13
    for kind in kinds:
        again = pickle.loads(pickle.dumps(kind("What was wrong.")))
        assert type(again) is kind
        assert isinstance(again, RetrievalError)
        assert str(again) == "What was wrong."
        assert kind.__name__ in (retrieval_errors.__doc__ or "")


def test_every_exported_name_exists_and_the_list_is_sorted() -> None:
    import retrieval

    assert sorted(retrieval.__all__) == retrieval.__all__
    for name in retrieval.__all__:
        assert getattr(retrieval, name).__name__ == name
    with pytest.raises(AttributeError, match="'Absent'"):
        _ = retrieval.Absent


def test_importing_the_room_does_not_import_torch() -> None:
    code = "import sys, retrieval; sys.exit('torch' in sys.modules or 'ray' in sys.modules)"
    root = Path(__file__).parent.parent
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
