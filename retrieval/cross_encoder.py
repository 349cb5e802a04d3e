"""A cross-encoder: reads a question and a passage together and says how well they fit."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from retrieval.errors import InvalidEncoder
from retrieval.model_folder import (
    batches,
    limited_threads,
    padded,
    positions,
    read_tokenizer,
    require_model,
    valid_unicode,
    without_bar,
)

MAX_PAIR_TOKENS = 512
"""Tokens of a question with a passage that are read; of the longer one the end is cut off."""


class CrossEncoder:
    """A sequence classifier with one output, read from a local folder; safe to use from threads.

    The folder holds `config.json`, `model.safetensors` and `tokenizer.json`: the MS MARCO MiniLM
    cross-encoders, the BGE rerankers and others that transformers loads. Raises `InvalidEncoder`.
    """

    def __init__(self, folder: Path, threads: int = 1, device: str = "cpu") -> None:
        """Load the model; `threads` bounds the CPU threads of one call of `score`."""
        require_model(folder, "a cross-encoder")
        self._threads = threads
        self._device = torch.device(device)
        self._model = _read_model(folder).to(self._device)
        limit = min(MAX_PAIR_TOKENS, positions(self._model.config))
        self._tokenizer = read_tokenizer(folder, limit)
        self._lock = threading.Lock()

    def score(self, query: str, passages: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return the model's output for each passage, float32 [n]; larger fits better."""
        pairs = [(valid_unicode(query), valid_unicode(passage)) for passage in passages]
        tokens = self._tokenizer.encode_batch(pairs)
        scores = np.empty(len(passages), dtype=np.float32)
        with self._lock, limited_threads(self._threads), torch.inference_mode():
            lengths = [len(encoding.ids) for encoding in tokens]
            for rows in batches(lengths, self._device.type):
                filler = self._model.config.pad_token_id or 0
                inputs = padded([tokens[row] for row in rows], filler, self._device)
                if getattr(self._model.config, "type_vocab_size", 0) < 2:
                    del inputs["token_type_ids"]
                scores[rows] = self._model(**inputs).logits[:, 0].float().cpu().numpy()
        return scores


def _read_model(folder: Path) -> Any:  # noqa: ANN401  transformers has no types
    from transformers import AutoModelForSequenceClassification

    with without_bar():
        model = AutoModelForSequenceClassification.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True, use_safetensors=True
        )
    if model.config.num_labels != 1:
        raise InvalidEncoder(
            f"{str(folder)!r} has {model.config.num_labels} outputs; a cross-encoder for ranking "
            "has one."
        )
    return model.eval()
