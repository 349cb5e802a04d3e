"""The model runner: one packed forward pass of a base model with weighted adapters."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from experts import few
from experts.adapters import Adapter
from experts.arena import Arena, CacheShape, RowCache
from experts.attention import PACKED, Packing, pack
from experts.decoder import FusedDecoder, fits
from experts.device import choose_device
from experts.gated import decoder_linears, gate_layers
from experts.int8 import HEAD, calibrate
from experts.invocation import Starts, spans
from experts.lowrank import AdapterBank, Gate, StepGates, arrange
from experts.projection import kernel_for, project_with


@dataclass(frozen=True)
class Work:
    """One row's part of a step: the tokens to run and the offsets in them that need logits.

    `starts` has every adapter of the gate that waits for its invocation: `AdapterBank.starts`.
    """

    cache: RowCache
    gate: Gate
    tokens: Sequence[int]
    wanted: Sequence[int]
    starts: Starts = field(default_factory=dict)


class _Stages(Protocol):
    def __call__(
        self, ids: torch.Tensor, packing: Packing, gates: StepGates
    ) -> Iterator[torch.Tensor]: ...


class Pass:
    """A forward pass that may rest between two layers while others run.

    Until it is over, its rows' caches must neither be fed nor released; dropping it undoes it.
    """

    def __init__(
        self,
        stages: Iterator[torch.Tensor],
        finish: Callable[[torch.Tensor], list[torch.Tensor]],
    ) -> None:
        self._stages, self._finish = stages, finish
        self._hidden = torch.empty(0)
        self.logits: list[torch.Tensor] = []

    @torch.inference_mode()
    def advance(self) -> bool:
        """Compute the next layer; True when `logits` are there: [wanted, vocabulary] of each row,
        in the order given."""
        hidden = next(self._stages, None)
        if hidden is None:
            self.logits = self._finish(self._hidden)
        else:
            self._hidden = hidden
        return hidden is None


class Runner:
    """A base model on one device: tokens and gates in, logits out.

    Args:
        folder: a folder with safetensors, configuration and tokenizer.
        device: `cpu`, `cuda`, `cuda:1`, …; `auto` takes CUDA when there is one.
        dtype: name of a torch floating-point type; `auto` is float32 on CPU, bfloat16 on CUDA;
            `int8` computes the base's linear layers in int8 on a CPU, after a look at their inputs.
        threads: intra-operation threads of this process on CPU; 0 leaves torch's default.
        cache_tokens: tokens of keys and values that all rows may hold together.
    """

    def __init__(
        self,
        folder: Path,
        *,
        device: str = "auto",
        dtype: str = "auto",
        threads: int = 0,
        cache_tokens: int = 65_536,
    ) -> None:
        if threads:
            torch.set_num_threads(threads)
        self.device = choose_device(device)
        self.dtype = _dtype(dtype, self.device)
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        model: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype=self.dtype, attn_implementation=PACKED
        ).to(self.device)
        model.eval().requires_grad_(False)
        self.linears = {
            path: (layer.in_features, layer.out_features)
            for path, layer in decoder_linears(model).items()
        }
        self.context = int(model.config.max_position_embeddings)
        self.ends = _ends(model, self.tokenizer)
        self.arena = Arena(_cache_shape(model.config, self.dtype, self.device), cache_tokens)
        self._take_over(model, int8=dtype == "int8")
        # Compiles the kernels at the first start, not in the first request.
        few.suits(self.arena.data, 1)

    def load(self, adapters: Sequence[Adapter]) -> None:
        """Load adapters, replacing those of the same name."""
        self.unload([adapter.name for adapter in adapters])
        self.bank.load(adapters)

    def unload(self, names: Collection[str]) -> None:
        """Forget adapters and what they made of the cached prefixes."""
        gone = set(self.bank.names) & set(names)
        for name in gone:
            self.bank.unload(name)
        if gone:
            self.arena.clear(lambda gate: any(name in gone for name, *_ in gate))

    def run(self, works: Sequence[Work]) -> list[torch.Tensor]:
        """Run one step; returns for each row logits [wanted, vocabulary] in the order given."""
        step = self.start(works)
        while not step.advance():
            pass
        return step.logits

    @torch.inference_mode()
    def start(self, works: Sequence[Work]) -> Pass:
        """Begin a step that may rest between layers.

        Raises:
            ValueError: a work does not say from where an adapter acts that waits.
        """
        cuts = [self._spans(work) for work in works]
        # A row in which an adapter begins to act lies with those of the base, where it begins.
        order = arrange([cut[0][0] for cut in cuts])
        rows = [works[n] for n in order]
        lengths = [len(work.tokens) for work in rows]
        packing = pack(self.arena, [work.cache for work in rows], lengths)
        ids = torch.tensor([t for work in rows for t in work.tokens], device=self.device)
        gated = [span for n in order for span in cuts[n]]
        gates = self.bank.step([gate for gate, _ in gated], [tokens for _, tokens in gated])

        def finish(hidden: torch.Tensor) -> list[torch.Tensor]:
            for segment in packing.segments:
                if segment.cache.length + segment.length != segment.end:
                    raise RuntimeError("a row was fed or rewound while a pass worked on it")
                segment.cache.advance(segment.length)
            picks = [
                s.start + offset
                for s, w in zip(packing.segments, rows, strict=True)
                for offset in w.wanted
            ]
            chosen = hidden if picks == list(range(len(ids))) else hidden[picks]
            logits = self._head(chosen) if picks else hidden.new_empty(0, 0)
            parts = torch.split(logits, [len(work.wanted) for work in rows])
            found = dict(zip(order, parts, strict=True))
            return [found[n] for n in range(len(works))]

        return Pass(self._stages(ids, packing, gates), finish)

    def _spans(self, work: Work) -> list[tuple[Gate, int]]:
        unsaid = self.bank.waiting(work.gate) - work.starts.keys()
        if unsaid:
            raise ValueError(f"adapter {min(unsaid)!r} waits: from where does it act?")
        return spans(work.gate, work.starts, work.cache.length, len(work.tokens))

    def _take_over(self, model: Any, *, int8: bool) -> None:  # noqa: ANN401
        kernel = kernel_for(self.device, self.dtype, int8=int8)
        like = model.get_input_embeddings().weight
        head = model.get_output_embeddings()
        if int8 and not fits(model):
            raise ValueError(
                f"int8 is for Llama, Mistral and Qwen2 models, not {type(model).__name__}: "
                "choose another dtype"
            )
        peaks = calibrate(model, self.tokenizer) if int8 else {}
        self._head = project_with(kernel, [head.weight], [head.bias], peaks.get(HEAD))
        if fits(model):
            decoder = FusedDecoder(model, kernel, peaks)
            self._stages: _Stages = decoder.stages
            self.bank = AdapterBank(decoder.groups, like)
        else:
            self.bank, holder = gate_layers(model)

            def whole(
                ids: torch.Tensor, packing: Packing, gates: StepGates
            ) -> Iterator[torch.Tensor]:
                holder.step = gates
                yield model.get_decoder()(
                    input_ids=ids[None],
                    position_ids=packing.positions[None],
                    use_cache=False,
                    packing=packing,
                )[0][0]

            self._stages = whole


def _ends(model: Any, tokenizer: Any) -> frozenset[int]:  # noqa: ANN401
    """Tokens that end an answer: those of the generation config and the tokenizer."""
    configured = model.generation_config.eos_token_id
    found = configured if isinstance(configured, list) else [configured]
    return frozenset(t for t in (*found, tokenizer.eos_token_id) if t is not None)


def _cache_shape(config: Any, dtype: torch.dtype, device: torch.device) -> CacheShape:  # noqa: ANN401
    heads = config.num_attention_heads
    return CacheShape(
        layers=config.num_hidden_layers,
        heads=getattr(config, "num_key_value_heads", None) or heads,
        dimension=getattr(config, "head_dim", None) or config.hidden_size // heads,
        dtype=dtype,
        device=device,
    )


def _dtype(name: str, device: torch.device) -> torch.dtype:
    auto = torch.float32 if device.type == "cpu" else torch.bfloat16
    return {"auto": auto, "int8": torch.float32}.get(name) or getattr(torch, name)
