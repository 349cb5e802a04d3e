"""What all sections share: the embedded model behind our engine and behind the peers."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from benchmarks.peers import Peer, Plain
from benchmarks.prompts import EXPERTS
from experts.adapters import EMBEDDED, WEIGHTS_FILE, Adapter, embedded_adapters, load_adapter
from experts.engine import Engine, WeightedGate
from experts.limits import EngineLimits
from experts.lowrank import Gate
from experts.runner import Runner
from experts.shelf import AdapterShelf
from experts.store import ModelStore
from experts.template import render_prompt

MODEL = "smollm2-135m-instruct"
FOURTH = "fourth"


@dataclass
class Workbench:
    """The model of both sides, loaded when a section asks for it.

    Args:
        quick: fewer rounds and smaller sizes, for development; not for figures.
        dtype: of our runner in the sections that do not choose one themselves.
        llamacpp_python: an interpreter that has `xllamacpp`.
        vllm_python: an interpreter that has vLLM.
        adapters: a folder of adapters for `thousand`; without one they are written to `scratch`.
        device: of both sides. Peers compute in `dtype` too, except beside our int8.
    """

    threads: int
    quick: bool = False
    dtype: str = "float32"
    llamacpp_python: str = ""
    vllm_python: str = ""
    adapters: Path | None = None
    device: str = "cpu"
    scratch: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="bench-")))

    def __post_init__(self) -> None:
        torch.set_num_threads(self.threads)
        self.folder = ModelStore().resolve(MODEL)
        self._runners: dict[str, Runner] = {}
        self._peer: Peer | None = None
        self._plain: Plain | None = None

    def close(self) -> None:
        """Remove what was written."""
        shutil.rmtree(self.scratch, ignore_errors=True)

    def rounds(self, full: int) -> int:
        """How often to measure."""
        return 2 if self.quick else full

    def size(self, full: int, quick: int) -> int:
        """A size of the workload."""
        return quick if self.quick else full

    def runner(self, dtype: str = "") -> Runner:
        """Our runner with the embedded adapters; it ends no answer by itself."""
        dtype = dtype or self.dtype
        if dtype not in self._runners:
            runner = Runner(self.folder, device=self.device, dtype=dtype, threads=self.threads)
            runner.load([self._load(name, EMBEDDED / name, runner) for name in embedded_adapters()])
            runner.ends = frozenset()
            self._runners[dtype] = runner
        return self._runners[dtype]

    def with_fourth(self, dtype: str = "") -> Runner:
        """The runner with a fourth adapter; `runner.bank.unload(FOURTH)` afterwards."""
        runner = self.runner(dtype)
        runner.load([self._load(FOURTH, self.fourth_folder(), runner)])
        return runner

    def peer(self) -> Peer:
        """The model inside PEFT with the embedded adapters and a fourth."""
        if self._peer is None:
            folders = {name: EMBEDDED / name for name in embedded_adapters()}
            adapters = {**folders, FOURTH: self.fourth_folder()}
            self._peer = Peer(self.folder, adapters, self.device, self._peers_dtype)
        return self._peer

    def plain(self) -> Plain:
        """The bare model inside transformers."""
        if self._plain is None:
            self._plain = Plain(self.folder, self.device, self._peers_dtype)
        return self._plain

    @property
    def _peers_dtype(self) -> torch.dtype:
        found: torch.dtype = getattr(torch, "float32" if self.dtype == "int8" else self.dtype)
        return found

    def fourth_folder(self) -> Path:
        """An adapter of the embedded ones' shape with shuffled values: the fourth expert is the
        base itself, and some measures need four adapters."""
        folder = self.scratch / FOURTH
        if not folder.is_dir():
            shutil.copytree(EMBEDDED / "code", folder)
            torch.manual_seed(0)
            tensors = load_file(folder / WEIGHTS_FILE)
            mixed = {
                k: t.flatten()[torch.randperm(t.numel())].view_as(t) for k, t in tensors.items()
            }
            save_file(mixed, folder / WEIGHTS_FILE, metadata={"format": "pt"})
        return folder

    def prompt(self, text: str) -> list[int]:
        """Token ids of a user's message under the chat template."""
        return render_prompt(self.runner().tokenizer, (("user", text),))

    def _load(self, name: str, folder: Path, runner: Runner) -> Adapter:
        return load_adapter(name, folder, runner.linears, MODEL)


def gate(expert: str) -> Gate:
    """The gate of one expert; the generalist is the base."""
    return {} if expert == EXPERTS[0] else {expert: 1.0}


def members(weights: Sequence[float]) -> list[WeightedGate]:
    """The first experts with these weights."""
    return [WeightedGate(gate(EXPERTS[n]), weight) for n, weight in enumerate(weights)]


@asynccontextmanager
async def running(
    runner: Runner, limits: EngineLimits | None = None, shelf: AdapterShelf | None = None
) -> AsyncIterator[Engine]:
    """An engine that begins with an empty cache and stops at the end."""
    runner.arena.clear()
    engine = Engine(runner, limits or EngineLimits(), shelf)
    engine.start()
    try:
        yield engine
    finally:
        settle(engine)
        engine.stop()


def settle(engine: Engine) -> None:
    """Wait until the engine has nothing left to do."""
    deadline = time.monotonic() + 10
    while engine.load != (0, 0) and time.monotonic() < deadline:
        time.sleep(0.001)
