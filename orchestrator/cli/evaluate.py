"""`collegium eval`: measure experts, routers and search on data that they were not trained on."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.console import out, progress_bar, readable_errors
from orchestrator.cli.evaluate_retrieval import evaluate_retrieval
from orchestrator.cli.evaluate_router import evaluate_router

if TYPE_CHECKING:
    from experts.adapters import Adapter
    from experts.evaluation import Cell
    from experts.examples import Example, Row


@click.group("eval")
def evaluate() -> None:
    """Measure experts, routers and search on data that they were not trained on."""


evaluate.add_command(evaluate_retrieval)
evaluate.add_command(evaluate_router)


@dataclass(frozen=True)
class _Asked:
    sets: tuple[str, ...]
    held_out_sets: tuple[str, ...]
    adapters: tuple[str, ...]
    base: str
    held_out: float
    split_seed: int
    min_response: int
    max_length: int
    rows: int
    seed: int
    device: str


@evaluate.command("experts")
@click.option(
    "--set", "sets", multiple=True, help="NAME=FILE: rows that no adapter was trained on."
)
@click.option(
    "--held-out-set",
    "held_out_sets",
    multiple=True,
    help="NAME=FILE: of a training file, only the rows that `train expert` kept back.",
)
@click.option(
    "--held-out",
    default=0.03,
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    show_default=True,
    help="For --held-out-set: the --held-out that the adapter was trained with. With another "
    "share or seed, rows that it was trained on are measured too, which flatters it.",
)
@click.option(
    "--split-seed",
    default=0,
    show_default=True,
    help="For --held-out-set: the --seed that the adapter was trained with.",
)
@click.option(
    "--min-response",
    default=0,
    type=click.IntRange(min=0),
    show_default=True,
    help="For --held-out-set: leave out rows with a response of fewer characters. 40 leaves out "
    "bare labels such as Yes and No, whose form alone is quickly learnt and hides the rest.",
)
@click.option("--adapter", "adapters", multiple=True, help="NAME=FOLDER; default: the embedded.")
@click.option("--base", default="smollm2-135m-instruct", show_default=True)
@click.option(
    "--rows",
    default=100,
    type=click.IntRange(min=1),
    show_default=True,
    help="At most so many rows of a set, drawn by --seed.",
)
@click.option(
    "--max-length",
    default=512,
    type=click.IntRange(min=1),
    show_default=True,
    help="Tokens of prompt and response together. A longer response is measured up to there; a "
    "row whose prompt alone is longer is left out.",
)
@click.option(
    "--seed", default=0, show_default=True, help="Of the choice of rows and of the intervals."
)
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1; auto: any.")
@click.option("--out", "target", type=click.Path(path_type=Path), help="Write the cells as JSON.")
def experts(target: Path | None, **options: Any) -> None:  # noqa: ANN401
    """Print the matrix: base and adapters against sets, in nats per response token.

    \b
    collegium eval experts --set code=eval/code.jsonl --set legal=eval/legal.jsonl
    """
    from experts.adapters import AdapterError
    from experts.device import DeviceError
    from experts.evaluation import EvaluationError
    from experts.examples import ExampleError
    from experts.store import ModelError

    asked = _Asked(**options)
    sets = _files(asked.sets), _files(asked.held_out_sets)
    if not any(sets):
        raise click.UsageError("give at least one --set NAME=FILE or --held-out-set NAME=FILE")
    twice = sets[0].keys() & sets[1].keys()
    if twice:
        raise click.UsageError(f"{min(twice)} is given as --set and as --held-out-set")
    with readable_errors(AdapterError, DeviceError, EvaluationError, ExampleError, ModelError):
        cells = _measure(asked, *sets)
    _show(cells)
    if target is not None:
        target.write_text(json.dumps([asdict(cell) for cell in cells], indent=1))


def _measure(asked: _Asked, sets: Mapping[str, Path], held_out: Mapping[str, Path]) -> list[Cell]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from experts.device import choose_device
    from experts.evaluation import loss_matrix
    from experts.examples import read_rows
    from experts.store import ModelStore

    with progress_bar() as pulling:
        folder = ModelStore().pull(asked.base, progress=pulling)
    # What may be refused is read first: the weights of a large base take minutes.
    adapters = _adapters(asked, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = {name: read_rows([path]) for name, path in sets.items()}
    rows |= {name: _kept_back(asked, path) for name, path in held_out.items()}
    domains = {name: _examples(asked, tokenizer, found) for name, found in rows.items()}
    device = choose_device(asked.device)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).to(device)
    with progress_bar() as bar:
        return loss_matrix(model, adapters, domains, seed=asked.seed, progress=bar)


def _adapters(asked: _Asked, base: Path) -> list[Adapter]:
    from experts.adapters import embedded_adapters, load_adapter
    from experts.local import adapter_folder, linear_layers

    named = pairs_of(asked.adapters) or {name: f"embedded:{name}" for name in embedded_adapters()}
    linears = linear_layers(base)
    return [load_adapter(n, adapter_folder(p), linears, asked.base) for n, p in named.items()]


def _kept_back(asked: _Asked, path: Path) -> list[Row]:
    from experts.examples import read_rows, split_rows

    _, kept = split_rows(read_rows([path]), asked.held_out, asked.split_seed)
    return [row for row in kept if len(row.response) >= asked.min_response]


def _examples(asked: _Asked, tokenizer: object, rows: Sequence[Row]) -> list[Example]:
    from experts.examples import tokenise

    examples = [e for row in rows if (e := tokenise(tokenizer, row, asked.max_length))]
    random.Random(asked.seed).shuffle(examples)
    return examples[: asked.rows]


def pairs_of(values: Sequence[str]) -> dict[str, str]:
    """`NAME=PATH` options as a mapping; a usage error names the one that is of another form."""
    pairs: dict[str, str] = {}
    for value in values:
        name, equals, path = value.partition("=")
        if not (name and equals and path):
            raise click.UsageError(f"{value!r} must have the form NAME=PATH")
        if name in pairs:
            raise click.UsageError(f"{name} is given twice")
        pairs[name] = path
    return pairs


def _files(values: Sequence[str]) -> dict[str, Path]:
    files = {name: Path(path).expanduser() for name, path in pairs_of(values).items()}
    for name, path in files.items():
        if not path.is_file():
            raise click.UsageError(f"{name}={path}: there is no such file")
    return files


def _show(cells: Sequence[Cell]) -> None:
    from rich.table import Table

    domains = dict.fromkeys(cell.domain for cell in cells)
    table = Table("model", *domains)
    for model in dict.fromkeys(cell.model for cell in cells):
        by_domain = {cell.domain: cell for cell in cells if cell.model == model}
        table.add_row(model, *(_text(by_domain[d]) for d in domains))
    out.print(table)


def _text(cell: Cell) -> str:
    interval = f"{cell.change:+.1%} [{cell.low:+.1%}, {cell.high:+.1%}]"
    return f"{cell.loss:.4f}\n{interval}\n{cell.rows} rows"
