"""One small adapter for every sub-domain, by the project's own trainer; those there stay.

They change the upper half of the layers: the gradient ends there, which saves a third of the time.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.split import part_file
from experts.adapters import CONFIG_FILE, WEIGHTS_FILE
from experts.device import choose_device
from experts.examples import Example, read_rows, tokenise
from experts.gated import decoder_linears
from experts.training import Lessons, Step, TrainingOptions, train_adapter

RECORD = "training.json"
OPTIONS = TrainingOptions(rank=8, alpha=16, learning_rate=2e-3, batch_tokens=256, max_length=256)
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class School:
    """What adapters are trained from: the folder of the split, the base and the options."""

    split: Path
    base: str
    folder: Path
    options: TrainingOptions
    device: str = "auto"
    threads: int = 2

    def train(self, names: Sequence[str], out: Path, progress: Progress) -> dict[str, Any]:
        """Train the adapters that `out` lacks, or has from other rows or options.

        Returns every adapter's record. `progress` is called with (label, tokens done, of all).
        """
        torch.set_num_threads(self.threads)
        tokenizer = AutoTokenizer.from_pretrained(self.folder)
        missing = {name: stamp for name in names if (stamp := self._missing(name, out)) is not None}
        lessons = {name: self._examples(tokenizer, name) for name in missing}
        total = sum(tokens_of(examples) for examples in lessons.values())
        done = 0
        for name, stamp in missing.items():
            size = tokens_of(lessons[name])

            def step(found: Step, done: int = done, size: int = size) -> None:
                progress("adapters, tokens", done + size * found.number // found.total, total)

            self._train(out / name, stamp, lessons[name], step)
            done += size
        return {name: _record(out / name) for name in names}

    def _missing(self, name: str, out: Path) -> str | None:
        settings = json.dumps([self.base, "upper half", asdict(self.options)], sort_keys=True)
        stamp = fingerprint_of([part_file(self.split, name, "adapter")], settings)
        whole = all((out / name / file).is_file() for file in (CONFIG_FILE, WEIGHTS_FILE))
        return None if whole and _record(out / name).get("stamp") == stamp else stamp

    def _examples(self, tokenizer: Any, name: str) -> list[Example]:  # noqa: ANN401
        rows = read_rows([part_file(self.split, name, "adapter")])
        found = (tokenise(tokenizer, row, self.options.max_length) for row in rows)
        return [example for example in found if example is not None]

    def _train(
        self,
        folder: Path,
        stamp: str,
        examples: Sequence[Example],
        on_step: Callable[[Step], None],
    ) -> None:
        device = choose_device(self.device)
        # Anew each time: the trainer wraps the layers of the model that it is given.
        model: Any = AutoModelForCausalLM.from_pretrained(self.folder, dtype=torch.float32)
        options = replace(self.options, targets=upper_half(model))
        started = time.perf_counter()
        # Without held-out rows: every adapter is measured on them afterwards, by the token.
        report = train_adapter(
            model.to(device), Lessons(examples, ()), folder, options, on_step, self.base
        )
        body = {
            "stamp": stamp,
            "rows": report.rows,
            "tokens": tokens_of(examples),
            "answer_tokens": report.trained_tokens,
            "steps": report.steps,
            "seconds": round(report.seconds, 1),
            "seconds_in_all": round(time.perf_counter() - started, 1),
        }
        (folder / RECORD).write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")


def upper_half(model: Any) -> tuple[str, ...]:  # noqa: ANN401
    """Module paths of the linear layers in the upper half of a decoder's layers."""
    half = model.config.num_hidden_layers // 2
    found = ((path, re.search(r"\.layers\.(\d+)\.", path)) for path in decoder_linears(model))
    return tuple(path for path, layer in found if layer and int(layer[1]) >= half)


def tokens_of(examples: Iterable[Example]) -> int:
    """Tokens of prompts and answers."""
    return sum(len(example.tokens) for example in examples)


def fingerprint_of(files: Iterable[Path], settings: str = "") -> str:
    """Sixteen hex digits that change with the contents of the files, or with the settings."""
    digest = hashlib.blake2b(settings.encode(), digest_size=8)
    for path in files:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "blake2b").digest())
    return digest.hexdigest()


def _record(folder: Path) -> dict[str, Any]:
    path = folder / RECORD
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found
