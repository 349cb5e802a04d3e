"""A model in a local folder: what must lie there, and how texts are run through it in batches."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from tokenizers import Encoding, Tokenizer

from retrieval.errors import InvalidEncoder

BATCH_TOKENS = 4096
"""Padded tokens of one forward pass; bounds memory."""

PADDING_TOKENS = {"cpu": 64}
"""Padding that takes about as long as another pass, by the kind of device; elsewhere passes of few
tokens leave the device idle."""

FILES = ("config.json", "model.safetensors", "tokenizer.json")
"""What every model folder holds."""


def require_model(folder: Path, what: str) -> None:
    """Raise `InvalidEncoder` naming what is missing in a folder that should hold `what`."""
    absent = [name for name in FILES if not (folder / name).is_file()]
    if absent:
        raise InvalidEncoder(
            f"{str(folder)!r} is not {what}: {', '.join(absent)} is missing. "
            f"Give a folder with {', '.join(FILES[:-1])} and {FILES[-1]}."
        )


@contextmanager
def without_bar() -> Iterator[None]:
    """Small models load in a second: no progress bar of transformers; downloads keep theirs."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    if shown:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def read_json(path: Path) -> dict[str, Any]:
    """Return a JSON object from a file, empty where there is none."""
    if not path.is_file():
        return {}
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def read_tokenizer(folder: Path, limit: int) -> Tokenizer:
    """Return the folder's tokenizer, which cuts a text off after `limit` tokens."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(limit)
    tokenizer.no_padding()
    return tokenizer


def positions(config: Any) -> int:  # noqa: ANN401  transformers has no types
    """Return how many tokens a model has positions for, by its configuration."""
    longest = int(getattr(config, "max_position_embeddings", 0) or sys.maxsize)
    # The kin of RoBERTa count positions from behind the padding's id.
    return longest - config.pad_token_id - 1 if "roberta" in config.model_type else longest


def valid_unicode(text: str) -> str:
    """Return a text without lone surrogates, which JSON may carry and no tokenizer accepts."""
    return text.encode("utf-8", "replace").decode("utf-8")


def batches(lengths: Sequence[int], device: str) -> Iterator[list[int]]:
    """Yield the places of texts of these lengths, batched by length.

    A batch has at most `BATCH_TOKENS`, and less padding than costs another pass on this kind of
    device ("cpu", "cuda").
    """
    most = PADDING_TOKENS.get(device, BATCH_TOKENS)
    order = sorted(range(len(lengths)), key=lambda row: lengths[row])
    batch: list[int] = []
    told = 0
    for row in order:
        # Rows come in growing length, so the newest one sets the padded width.
        width, told = lengths[row] * (len(batch) + 1), told + lengths[row]
        if batch and (width > BATCH_TOKENS or width - told > most):
            yield batch
            batch, told = [], lengths[row]
        batch.append(row)
    if batch:
        yield batch


def padded(
    tokens: Sequence[Encoding], filler: int, device: torch.device
) -> dict[str, torch.Tensor]:
    """Return ids, mask and segments of some encodings, each [n, longest], padded with `filler`."""
    shape = (len(tokens), max(len(encoding.ids) for encoding in tokens))
    ids = torch.full(shape, filler, dtype=torch.long)
    mask, segments = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    for row, encoding in enumerate(tokens):
        length = len(encoding.ids)
        ids[row, :length] = torch.tensor(encoding.ids)
        segments[row, :length] = torch.tensor(encoding.type_ids)
        mask[row, :length] = 1
    named = {"input_ids": ids, "attention_mask": mask, "token_type_ids": segments}
    return {name: tensor.to(device) for name, tensor in named.items()}


@contextmanager
def limited_threads(threads: int) -> Iterator[None]:
    """Bound the CPU threads of torch."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
