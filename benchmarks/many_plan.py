"""What a run of `benchmarks.many_experts` is asked for, and where its stages keep their work."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from benchmarks.specialists import OPTIONS, fingerprint_of
from benchmarks.split import Limits, part_file, read_table
from benchmarks.sub_domains import SUB_DOMAINS, Source
from benchmarks.token_losses import TokenLosses
from experts.adapters import WEIGHTS_FILE
from experts.examples import Row, read_rows
from experts.store import ModelStore
from experts.training import TrainingOptions
from retrieval.encoder import Encoder
from router.dataset import LabelledPrompt, read_prompts
from router.features import Vector
from router.memory import EncoderMemory
from router.training import remember

BASE = "base"

Progress = Callable[[str, int, int], None]


class StageError(ValueError):
    """A stage lacks what an earlier one makes; the message names that stage."""


@dataclass(frozen=True, eq=False)
class Plan:
    """What a run is asked for; `answer_tokens` of each answer, from its beginning, are measured.

    Where an answer is too short to ever count, its losses matter for the regret alone: `short_rows`
    such rows of a sub-domain are measured. `gate_losses` rows of each that no adapter has seen
    teach the gate by their losses.
    """

    data: Path
    out: Path
    table: Mapping[str, Sequence[Source]] = field(default_factory=lambda: SUB_DOMAINS)
    limits: Limits = Limits()
    options: TrainingOptions = OPTIONS
    base: str = "smollm2-135m-instruct"
    encoder: str = "all-minilm-l6-v2"
    answer_tokens: int = 64
    short_rows: int = 6
    gate_losses: int = 4
    epochs: int = 24
    device: str = "auto"
    threads: int = 2

    @property
    def split(self) -> Path:
        """The folder of the split."""
        return self.out / "split"

    @property
    def adapters(self) -> Path:
        """The folder of the adapters' folders."""
        return self.out / "adapters"

    @property
    def gate(self) -> Path:
        """The folder of the gate."""
        return self.out / "gate"

    @property
    def base_folder(self) -> Path:
        """The base model, fetched if need be."""
        return ModelStore().resolve(self.base)

    def names(self) -> tuple[str, ...]:
        """The sub-domains of the split.

        Raises `StageError` where there are not two.
        """
        found = tuple(read_table(self.split).get("sub_domains", ()))
        if len(found) < 2:
            raise StageError(f"{self.split}: fewer than two sub-domains; `split` comes first")
        return found

    def rows(self, name: str, part: str) -> list[Row]:
        """The rows of a sub-domain's part."""
        return read_rows([part_file(self.split, name, part)])

    def files(self, *parts: str) -> list[Path]:
        """The files of these parts of all sub-domains."""
        return [part_file(self.split, name, part) for name in self.names() for part in parts]

    def prompts(self, *parts: str) -> list[LabelledPrompt]:
        """The prompts of these parts of all sub-domains, labelled with them."""
        return list(read_prompts(self.files(*parts)))

    def losses(self) -> TokenLosses:
        """The table of these very adapters: those of other weights have a file of their own.

        Raises `StageError` where an adapter is missing.
        """
        weights = [self.adapters / name / WEIGHTS_FILE for name in self.names()]
        missing = [path.parent.name for path in weights if not path.is_file()]
        if missing:
            raise StageError(f"no adapter of {', '.join(missing)}; `train` comes first")
        first = fingerprint_of([], f"{self.base} {self.answer_tokens}")
        marks = [first, *(fingerprint_of([path], first) for path in weights)]
        place = self.out / f"losses-{fingerprint_of([], ' '.join(marks))}.jsonl"
        return TokenLosses(place, [BASE, *self.names()], marks)

    @property
    def vector_file(self) -> Path:
        """Where sentence vectors are kept."""
        return self.out / "vectors.sqlite"

    def memory(self, rows: Sequence[LabelledPrompt], progress: Progress) -> EncoderMemory:
        """An encoder that has the sentence vectors of rows ready."""
        return remember(rows, self.encode, self.encoder, self.vector_file, progress)

    def encode(self, texts: Sequence[str]) -> Vector:
        """The sentence vectors [n, d] of texts."""
        return self._model.encode(texts)

    @cached_property
    def _model(self) -> Encoder:
        return Encoder(ModelStore().resolve(self.encoder), threads=self.threads)
