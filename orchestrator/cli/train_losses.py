"""`collegium train losses`: how well each expert predicts known answers."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.console import out, progress_bar, readable_errors

if TYPE_CHECKING:
    from experts.examples import Example

GENERALIST = "general"
_Files = click.Path(exists=True, dir_okay=False, path_type=Path)
_Count = click.IntRange(min=1)


@dataclass(frozen=True)
class _Asked:
    data: tuple[Path, ...]
    adapters: tuple[str, ...]
    base: str
    rows: int
    prompt_tokens: int
    answer_tokens: int
    seed: int
    apart: bool
    device: str
    threads: int


@click.command("losses")
@click.option("--data", required=True, multiple=True, type=_Files, help="Repeatable.")
@click.option(
    "--adapter", "adapters", multiple=True, help="NAME=FOLDER (repeatable); default: the embedded."
)
@click.option("--base", default="smollm2-135m-instruct", show_default=True)
@click.option(
    "--rows", default=300, type=_Count, show_default=True, help="Of each file, drawn by --seed."
)
@click.option(
    "--prompt-tokens", default=400, type=_Count, show_default=True, help="Longer ones are left out."
)
@click.option(
    "--answer-tokens",
    default=96,
    type=_Count,
    show_default=True,
    help="Of each answer, from its beginning.",
)
@click.option("--seed", default=0, show_default=True, help="Of the choice of rows.")
@click.option(
    "--apart",
    is_flag=True,
    help="Only rows that `collegium train router` with the same --seed does not fit to: what "
    "`collegium train promises` reads.",
)
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1; auto: any.")
@click.option("--threads", default=2, type=_Count, show_default=True)
@click.option(
    "--out",
    "target",
    default="losses.jsonl",
    type=click.Path(path_type=Path),
    show_default=True,
    help="What it holds already is not measured again.",
)
def train_losses(target: Path, **options: Any) -> None:  # noqa: ANN401
    """Measure every expert's loss on the answers of JSON Lines files with prompt and response.

    The table tells which expert predicts a prompt's answer best: nats per token, a line per prompt,
    the experts named in the first line. The run may be stopped and started again.

    \b
    collegium train losses --data code.jsonl --data legal.jsonl --out losses.jsonl
    """
    from experts.adapters import AdapterError
    from experts.device import DeviceError
    from experts.examples import ExampleError
    from experts.store import ModelError
    from router.losses import LossError

    with readable_errors(AdapterError, DeviceError, ExampleError, LossError, ModelError):
        done, skipped = _measure(_Asked(**options), target)
    out.print(f"{target}: {done} rows measured" + (f", {skipped} too long" if skipped else ""))


def _measure(asked: _Asked, target: Path) -> tuple[int, int]:
    from experts.adapters import embedded_adapters, load_adapter
    from experts.answer_losses import answer_losses
    from experts.local import adapter_folder
    from experts.runner import Runner
    from experts.store import ModelStore
    from orchestrator.cli.evaluate import pairs_of
    from router.losses import AnswerLoss, LossFile

    with progress_bar() as bar:
        folder = ModelStore().pull(asked.base, progress=bar)
        runner = Runner(folder, device=asked.device, dtype="float32", threads=asked.threads)
        named = pairs_of(asked.adapters) or {n: f"embedded:{n}" for n in embedded_adapters()}
        folders = {name: adapter_folder(path) for name, path in named.items()}
        runner.load([load_adapter(n, p, runner.linears, asked.base) for n, p in folders.items()])
        marks = [_mark([folder]), *(_mark([folder, path]) for path in folders.values())]
        file = LossFile(target, [GENERALIST, *folders], marks)
        chosen, skipped = _chosen(asked, runner.tokenizer)
        new = [e for e in chosen if file.table.of(e.row.prompt) is None]
        gates = [{}, *({name: 1.0} for name in folders)]
        for found in answer_losses(runner, gates, new, lambda d, t: bar("losses", d, t)):
            length = found.example.response_length
            file.add(found.example.row.prompt, AnswerLoss(found.losses, length))
    return len(new), skipped


def _chosen(asked: _Asked, tokenizer: Any) -> tuple[list[Example], int]:  # noqa: ANN401
    from experts.examples import read_rows
    from router.promising import is_apart

    examples: list[Example] = []
    skipped = 0
    for path in asked.data:
        rows = [r for r in read_rows([path]) if not asked.apart or is_apart(r.prompt, asked.seed)]
        random.Random(asked.seed).shuffle(rows)
        found = [_example(asked, tokenizer, row) for row in rows[: asked.rows]]
        examples += [example for example in found if example is not None]
        skipped += found.count(None)
    return examples, skipped


def _example(asked: _Asked, tokenizer: Any, row: Any) -> Example | None:  # noqa: ANN401
    from experts.examples import Example, tokenise

    whole = tokenise(tokenizer, row, max_length=1 << 30)
    if whole is None or whole.prompt_length > asked.prompt_tokens:
        return None
    end = whole.prompt_length + asked.answer_tokens
    return Example(row, whole.tokens[:end], whole.prompt_length)


def _mark(folders: Sequence[Path]) -> str:
    """A fingerprint of the weights in these folders."""
    digest = hashlib.blake2b(digest_size=8)
    for path in _weights(folders):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "blake2b").digest())
    return digest.hexdigest()


def _weights(folders: Iterable[Path]) -> list[Path]:
    return [path for folder in folders for path in sorted(folder.glob("*.safetensors"))]
