"""The model runner: one packed forward pass of a base model with gated adapters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from experts.cache import PACKED, CacheShape, RowCache, pack
from experts.gated import AdapterBank, Gate


@dataclass(frozen=True)
class Work:
    """One row's part of a step: the tokens to run and the offsets in them that need logits."""

    cache: RowCache
    gate: Gate
    tokens: Sequence[int]
    wanted: Sequence[int]


class Runner:
    """A base model on one device: tokens and gates in, logits out.

    Args:
        folder: a folder with safetensors, configuration and tokenizer.
        device: `cpu`, `cuda`, `cuda:1`, …; `auto` takes CUDA when there is one.
        dtype: name of a torch floating-point type; `auto` is float32 on CPU, bfloat16 on CUDA.
        threads: intra-operation threads of this process on CPU; 0 leaves torch's default.
    """

    def __init__(
        self, folder: Path, *, device: str = "auto", dtype: str = "auto", threads: int = 0
    ) -> None:
        if threads:
            torch.set_num_threads(threads)
        self.device = _device(device)
        self.dtype = _dtype(dtype, self.device)
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self.model: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype=self.dtype, attn_implementation=PACKED
        ).to(self.device)
        self.model.eval().requires_grad_(False)
        self.bank = AdapterBank(self.model)
        config = self.model.config
        heads = config.num_attention_heads
        self.context = int(config.max_position_embeddings)
        self.cache_shape = CacheShape(
            layers=config.num_hidden_layers,
            heads=getattr(config, "num_key_value_heads", None) or heads,
            dimension=getattr(config, "head_dim", None) or config.hidden_size // heads,
            dtype=self.dtype,
            device=self.device,
        )

    @property
    def ends(self) -> frozenset[int]:
        """Tokens that end an answer: those of the generation config and the tokenizer."""
        configured = self.model.generation_config.eos_token_id
        found = configured if isinstance(configured, list) else [configured]
        return frozenset(t for t in (*found, self.tokenizer.eos_token_id) if t is not None)

    @torch.inference_mode()
    def run(self, works: Sequence[Work]) -> list[torch.Tensor]:
        """Run one step; returns for each row logits [wanted, vocabulary] in the order given."""
        lengths = [len(work.tokens) for work in works]
        segments = pack([work.cache for work in works], lengths)
        ids = torch.tensor([[t for work in works for t in work.tokens]], device=self.device)
        positions = torch.cat(
            [torch.arange(s.cache.length, s.cache.length + s.length) for s in segments]
        ).to(self.device)
        self.bank.gates.set([work.gate for work in works], lengths, self._weight)
        hidden = self.model.get_decoder()(
            input_ids=ids, position_ids=positions[None], use_cache=False, packed=segments
        )[0][0]
        self.bank.gates.clear()
        for segment in segments:
            segment.cache.advance(segment.length)
        picks = [
            s.start + offset for s, w in zip(segments, works, strict=True) for offset in w.wanted
        ]
        logits = self.model.get_output_embeddings()(hidden[picks])
        return list(logits.split([len(work.wanted) for work in works]))

    @property
    def _weight(self) -> torch.Tensor:
        weight: torch.Tensor = self.model.get_input_embeddings().weight
        return weight


def _device(name: str) -> torch.device:
    auto = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(auto if name == "auto" else name)


def _dtype(name: str, device: torch.device) -> torch.dtype:
    auto = torch.float32 if device.type == "cpu" else torch.bfloat16
    return auto if name == "auto" else getattr(torch, name)
