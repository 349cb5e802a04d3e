"""The sentence encoder: texts to unit vectors, by BERT-like sentence-transformers models."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Encoding, Tokenizer

from retrieval.embeddings import Embeddings
from retrieval.errors import InvalidEncoder

MAX_TOKENS = 256
"""Tokens of a text that are read, special tokens included; the rest is cut off."""

BATCH_TOKENS = 4096
"""Padded tokens of one forward pass; bounds memory and the cost of padding."""

_POOLINGS = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}


class Encoder:
    """A sentence encoder read from a local folder; safe to call from several threads.

    The folder holds `config.json`, `model.safetensors` and `tokenizer.json`, and optionally
    `1_Pooling/config.json` (mean or first-token pooling) and `sentence_bert_config.json`
    (a smaller `max_seq_length`). Raises `InvalidEncoder` naming what is missing.
    """

    def __init__(self, folder: Path, threads: int = 1, device: str = "cpu") -> None:
        """Load the model; `threads` bounds the CPU threads of one call of `encode`."""
        if threads < 1:
            raise InvalidEncoder(f"threads must be at least 1, not {threads}.")
        _require(folder, ("config.json", "model.safetensors", "tokenizer.json"))
        self._threads = threads
        self._device = torch.device(device)
        self._pooling = _read_pooling(folder)
        self._tokenizer = _read_tokenizer(folder)
        self._model = _read_model(folder).to(self._device)
        self._lock = threading.Lock()

    @property
    def dimensions(self) -> int:
        """Length of a vector."""
        return int(self._model.config.hidden_size)

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return one unit vector per text: float32 of shape [len(texts), dimensions].

        Texts are batched by length and the order of the input is kept. Only the first
        `MAX_TOKENS` tokens of a text count.
        """
        return self.embed(texts).vectors

    def embed(self, texts: Sequence[str]) -> Embeddings:
        """The vectors as `encode` returns them, with the number of tokens."""
        vectors = np.empty((len(texts), self.dimensions), dtype=np.float32)
        tokens = self._tokenizer.encode_batch([_valid_unicode(text) for text in texts])
        with self._lock, _limited_threads(self._threads), torch.inference_mode():
            for rows in _batches([len(encoding.ids) for encoding in tokens]):
                vectors[rows] = self._forward([tokens[row] for row in rows])
        return Embeddings(vectors, sum(len(encoding.ids) for encoding in tokens))

    def _forward(self, tokens: list[Encoding]) -> npt.NDArray[np.float32]:
        width = max(len(encoding.ids) for encoding in tokens)
        ids = torch.zeros((len(tokens), width), dtype=torch.long)
        mask = torch.zeros((len(tokens), width), dtype=torch.long)
        for row, encoding in enumerate(tokens):
            ids[row, : len(encoding.ids)] = torch.tensor(encoding.ids)
            mask[row, : len(encoding.ids)] = 1
        ids, mask = ids.to(self._device), mask.to(self._device)
        hidden = self._model(input_ids=ids, attention_mask=mask).last_hidden_state.float()
        if self._pooling == "cls":
            pooled = hidden[:, 0]
        else:
            weights = mask.unsqueeze(-1).float()
            pooled = (hidden * weights).sum(1) / weights.sum(1)
        result: npt.NDArray[np.float32] = torch.nn.functional.normalize(pooled).cpu().numpy()
        return result


def _require(folder: Path, names: Sequence[str]) -> None:
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise InvalidEncoder(
            f"{str(folder)!r} is not a sentence encoder: {', '.join(missing)} is missing. "
            "Give a folder with config.json, model.safetensors and tokenizer.json."
        )


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _read_pooling(folder: Path) -> str:
    settings = _read_json(folder / "1_Pooling" / "config.json")
    active = [key for key, on in settings.items() if key.startswith("pooling_mode_") and on is True]
    unsupported = [key for key in active if key not in _POOLINGS]
    if unsupported or len(active) > 1:
        raise InvalidEncoder(
            f"{str(folder)!r} pools by {', '.join(active)}; "
            "supported is one of mean tokens or the first token."
        )
    return _POOLINGS[active[0]] if active else "mean"


def _read_tokenizer(folder: Path) -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    declared = _read_json(folder / "sentence_bert_config.json").get("max_seq_length")
    tokenizer.enable_truncation(min(MAX_TOKENS, declared or MAX_TOKENS))
    tokenizer.no_padding()
    return tokenizer


def _read_model(folder: Path) -> Any:  # noqa: ANN401  transformers has no types
    from transformers import AutoModel

    model = AutoModel.from_pretrained(
        folder, dtype=torch.float32, local_files_only=True, use_safetensors=True
    )
    return model.eval()


def _valid_unicode(text: str) -> str:
    # JSON may carry lone surrogates, which no tokenizer accepts.
    return text.encode("utf-8", "replace").decode("utf-8")


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    order = sorted(range(len(lengths)), key=lambda row: lengths[row])
    batch: list[int] = []
    for row in order:
        # Rows come in growing length, so the newest one sets the padded width.
        if batch and lengths[row] * (len(batch) + 1) > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


@contextmanager
def _limited_threads(threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
