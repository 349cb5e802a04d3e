"""The sentence encoder: texts to unit vectors, by sentence-transformers models of BERT's kin.

BERT, XLM-RoBERTa and others that transformers loads as an `AutoModel` with hidden states. Models
that were trained with a prefix before questions and another before passages (E5: "query: ",
"passage: ") get them from their own `config_sentence_transformers.json`, or from who opens them.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Encoding

from retrieval.embeddings import Embeddings
from retrieval.errors import InvalidEncoder
from retrieval.model_folder import (
    batches,
    limited_threads,
    padded,
    positions,
    read_json,
    read_tokenizer,
    require_model,
    valid_unicode,
    without_bar,
)
from retrieval.reading import legible

MAX_TOKENS = 256
"""Tokens of a text that are read, special tokens included; the rest is cut off."""

_POOLINGS = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}
_MODULES = ("Transformer", "Pooling", "Normalize")
_QUERY_PROMPTS = ("query", "search_query")
_PASSAGE_PROMPTS = ("passage", "document", "search_document")


class Encoder:
    """A sentence encoder read from a local folder; safe to call from several threads.

    The folder holds `config.json`, `model.safetensors` and `tokenizer.json`, and optionally
    `1_Pooling/config.json` (mean or first-token pooling), `sentence_bert_config.json`
    (a smaller `max_seq_length`) and `config_sentence_transformers.json` (`prompts`). Raises
    `InvalidEncoder` naming what is missing.
    """

    def __init__(
        self,
        folder: Path,
        threads: int = 1,
        device: str = "cpu",
        query_prefix: str | None = None,
        passage_prefix: str | None = None,
    ) -> None:
        """Load the model; `threads` bounds the CPU threads of one call of `encode`.

        The prefixes are put before questions and passages; None takes those that the folder names.
        """
        if threads < 1:
            raise InvalidEncoder(f"threads must be at least 1, not {threads}.")
        require_model(folder, "a sentence encoder")
        self._threads = threads
        self._device = torch.device(device)
        _require_plain(folder)
        self._pooling = _read_pooling(folder)
        declared = read_json(folder / "sentence_bert_config.json").get("max_seq_length")
        self._query_prefix = _prefix(folder, query_prefix, _QUERY_PROMPTS)
        self._passage_prefix = _prefix(folder, passage_prefix, _PASSAGE_PROMPTS)
        self._model = _read_model(folder).to(self._device)
        limit = min(MAX_TOKENS, declared or MAX_TOKENS, positions(self._model.config))
        self._tokenizer = read_tokenizer(folder, limit)
        self._unknown = getattr(self._tokenizer.model, "unk_token", None)
        self._lock = threading.Lock()

    @property
    def dimensions(self) -> int:
        """Length of a vector."""
        return int(self._model.config.hidden_size)

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return one unit vector per text: float32 of shape [len(texts), dimensions].

        Texts are taken for questions where that makes a difference. They are batched by length and
        the order of the input is kept. Only the first `MAX_TOKENS` tokens of a text count.
        """
        return self.embed(texts).vectors

    def encode_passages(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return one unit vector per text as `encode` does, of texts that are searched."""
        return self._embed([self._passage_prefix + text for text in texts]).vectors

    def embed(self, texts: Sequence[str]) -> Embeddings:
        """The vectors as `encode` returns them, with the number of tokens."""
        return self._embed([self._query_prefix + text for text in texts])

    def reads(self, text: str) -> float:
        """Return how well the encoder knows the words of a text, 0..1: see `retrieval.reading`."""
        valid = valid_unicode(text)
        encoding = self._tokenizer.encode(valid, add_special_tokens=False)
        return legible(encoding, valid, self._unknown)

    def _embed(self, texts: Sequence[str]) -> Embeddings:
        vectors = np.empty((len(texts), self.dimensions), dtype=np.float32)
        tokens = self._tokenizer.encode_batch([valid_unicode(text) for text in texts])
        with self._lock, limited_threads(self._threads), torch.inference_mode():
            lengths = [len(encoding.ids) for encoding in tokens]
            for rows in batches(lengths, self._device.type):
                vectors[rows] = self._forward([tokens[row] for row in rows])
        return Embeddings(vectors, sum(len(encoding.ids) for encoding in tokens))

    def _forward(self, tokens: list[Encoding]) -> npt.NDArray[np.float32]:
        filler = self._model.config.pad_token_id or 0
        inputs = padded(tokens, filler, self._device)
        del inputs["token_type_ids"]  # one text is one segment, which every model takes for granted
        hidden = self._model(**inputs).last_hidden_state.float()
        if self._pooling == "cls":
            pooled = hidden[:, 0]
        else:
            weights = inputs["attention_mask"].unsqueeze(-1).float()
            pooled = (hidden * weights).sum(1) / weights.sum(1)
        result: npt.NDArray[np.float32] = torch.nn.functional.normalize(pooled).cpu().numpy()
        return result


def _require_plain(folder: Path) -> None:
    listed = folder / "modules.json"
    modules = json.loads(listed.read_text(encoding="utf-8")) if listed.is_file() else []
    kinds = [str(module["type"]).rpartition(".")[2] for module in modules]
    others = [kind for kind in kinds if kind not in _MODULES]
    if others:
        raise InvalidEncoder(
            f"{str(folder)!r} has a module {others[0]!r} behind its transformer; supported are "
            f"{', '.join(_MODULES)}."
        )


def _read_pooling(folder: Path) -> str:
    settings = read_json(folder / "1_Pooling" / "config.json")
    active = [key for key, on in settings.items() if key.startswith("pooling_mode_") and on is True]
    unsupported = [key for key in active if key not in _POOLINGS]
    if unsupported or len(active) > 1:
        raise InvalidEncoder(
            f"{str(folder)!r} pools by {', '.join(active)}; "
            "supported is one of mean tokens or the first token."
        )
    return _POOLINGS[active[0]] if active else "mean"


def _prefix(folder: Path, given: str | None, names: Sequence[str]) -> str:
    if given is not None:
        return given
    prompts = read_json(folder / "config_sentence_transformers.json").get("prompts") or {}
    return next((str(prompts[name]) for name in names if name in prompts), "")


def _read_model(folder: Path) -> Any:  # noqa: ANN401  transformers has no types
    from transformers import AutoModel

    with without_bar():
        model = AutoModel.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True, use_safetensors=True
        )
    return model.eval()
