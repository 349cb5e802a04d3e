"""Local experts: one base model with its adapters behind one engine.

The same class serves one expert of a deployment of its own and all experts together: a replica
always holds the base once and every adapter of that base, so any mix can be made inside it.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from experts.adapters import EMBEDDED, Adapter, load_adapter
from experts.engine import Engine, WeightedGate
from experts.gated import decoder_linears
from experts.generation import (
    Chunk,
    ExpertError,
    Generation,
    Health,
    LocalMode,
    Score,
    Scoring,
)
from experts.job import Terms
from experts.limits import EngineLimits
from experts.lowrank import Gate
from experts.runner import Runner
from experts.shelf import AdapterShelf
from experts.store import ModelStore
from experts.template import render_prompt


@dataclass(frozen=True)
class LocalSpec:
    """A base model and the experts over it: expert name → adapter folder, or None for the base.

    `model` is any source of the model store; `embedded:NAME` names an adapter of the package. Of
    the adapters `resident` may be loaded at a time; those of `pinned` experts stay.
    """

    model: str
    experts: tuple[tuple[str, str | None], ...]
    revision: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    threads: int = 0
    resident: int = 64
    pinned: tuple[str, ...] = ()
    limits: EngineLimits = EngineLimits()


class LocalExperts:
    """Experts of one base model, in this process.

    Raises:
        ModelError: the base model cannot be found or fetched.
        AdapterError: an adapter does not fit; that is found before the base's weights are read.
    """

    def __init__(self, spec: LocalSpec) -> None:
        folder = ModelStore().resolve(spec.model, revision=spec.revision)
        folders = {name: adapter_folder(path) for name, path in spec.experts if path}
        adapters = _checked_adapters(spec, folder, folders)
        self._runner = Runner(
            folder,
            device=spec.device,
            dtype=spec.dtype,
            threads=spec.threads,
            cache_tokens=spec.limits.max_tokens_in_cache,
        )
        self._adapted = {name for name, path in spec.experts if path}
        self._names = tuple(name for name, _ in spec.experts)
        shelf = AdapterShelf(
            lambda name: load_adapter(name, folders[name], self._runner.linears, spec.model).like(
                self._runner.bank.like
            ),
            capacity=min(spec.resident, max(1, len(folders))),
            pinned=spec.pinned,
        )
        self._runner.load(adapters)
        for adapter in adapters:
            shelf.adopt(adapter.name)
        self.engine = Engine(self._runner, spec.limits, shelf)
        self.engine.start()

    async def generate(self, request: Generation) -> AsyncGenerator[Chunk, None]:
        """Stream the answer of the weighted experts of a request.

        Raises:
            ExpertError: an expert is not here, or the engine cannot take the request.
        """
        members = self.members(request.mode, request.experts)
        prompt = await asyncio.to_thread(self.prompt, request.messages)
        left = request.deadline_s
        terms = Terms(
            priority=request.priority,
            deadline=None if left is None else time.monotonic() + left,
            principal=request.principal,
        )
        stream = self.engine.generate(
            request.id,
            prompt,
            members,
            request.sampling,
            posterior=request.posterior,
            terms=terms,
        )
        async with aclosing(stream):
            async for chunk in stream:
                yield chunk

    async def score(self, request: Scoring) -> Score:
        """Log-likelihood of a text as the answer to a conversation, under one expert."""
        gate = self.members(LocalMode.SINGLE, ((request.expert, 1.0),))[0].gate
        prompt = await asyncio.to_thread(self.prompt, request.messages)
        return await self.engine.score(os.urandom(8).hex(), prompt, request.text, gate)

    async def health(self) -> Health:
        """Which experts are here and how busy they are."""
        running, waiting = self.engine.load
        return Health(self._names, str(self._runner.device), running, waiting, os.getpid())

    def stats(self) -> dict[str, float]:
        """What the engine has done and holds, by name."""
        engine, shelf, arena = self.engine, self.engine.shelf, self.engine.runner.arena
        running, waiting = engine.load
        return {
            "running_requests": running,
            "waiting_requests": waiting,
            "finished_requests": engine.counters.finished,
            "steps": engine.counters.steps,
            "step_rows": engine.counters.rows,
            "step_tokens": engine.counters.tokens,
            "step_seconds": engine.counters.seconds,
            "guessed_tokens": engine.counters.guessed,
            "guessed_right_tokens": engine.counters.guessed_right,
            "cache_free_tokens": arena.free_tokens,
            "cache_reused_tokens": arena.reused_tokens,
            "adapters_resident": len(shelf.resident),
            "adapter_hits": shelf.counters.hits,
            "adapter_loads": shelf.counters.loads,
            "adapter_evictions": shelf.counters.evictions,
        }

    def check_health(self) -> None:
        """Raise when the engine can no longer answer, so that the replica is replaced."""
        if self.engine.failure is not None:
            raise ExpertError(f"the engine has failed: {self.engine.failure}")

    def prompt(self, messages: Sequence[tuple[str, str]]) -> list[int]:
        """Token ids of a conversation under the model's chat template."""
        return render_prompt(self._runner.tokenizer, messages)

    def members(self, mode: LocalMode, experts: Sequence[tuple[str, float]]) -> list[WeightedGate]:
        """The rows of a request: one for `single` and `blend`, one per expert for `mixture`."""
        unknown = [name for name, _ in experts if name not in self._names]
        if unknown or not experts:
            raise ExpertError(f"experts {unknown} are not here; here are {list(self._names)}")
        if mode is LocalMode.MIXTURE:
            members = [WeightedGate(self._gate(((n, 1.0),)), w) for n, w in experts if w > 0]
        elif mode is LocalMode.BLEND:
            members = [WeightedGate(self._gate(experts), 1.0)]
        else:
            members = [WeightedGate(self._gate(((experts[0][0], 1.0),)), 1.0)]
        return members

    def _gate(self, experts: Sequence[tuple[str, float]]) -> Gate:
        gate: Mapping[str, float] = {n: w for n, w in experts if n in self._adapted}
        return gate


def linear_layers(folder: Path) -> dict[str, tuple[int, int]]:
    """Module path → (in_features, out_features) of a base model, without reading its weights."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    return {
        path: (layer.in_features, layer.out_features)
        for path, layer in decoder_linears(model).items()
    }


def _checked_adapters(spec: LocalSpec, folder: Path, folders: Mapping[str, Path]) -> list[Adapter]:
    """Every adapter is read and checked; those that are to be resident at the start come back."""
    linears = linear_layers(folder) if folders else {}
    first = sorted(folders, key=lambda name: name not in spec.pinned)[: spec.resident]
    kept = []
    for name, path in folders.items():
        adapter = load_adapter(name, path, linears, spec.model)
        if name in first:
            kept.append(adapter)
    return kept


def adapter_folder(path: str) -> Path:
    """The folder of an adapter as written in a configuration."""
    if path.startswith("embedded:"):
        folder = EMBEDDED / Path(path.removeprefix("embedded:")).name
    else:
        folder = Path(path).expanduser()
    return folder
