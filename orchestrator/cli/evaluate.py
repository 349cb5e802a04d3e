"""`collegium eval`: measure experts on held-out data."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.cli.console import out, progress_bar, readable_errors

if TYPE_CHECKING:
    from experts.evaluation import Cell


@click.group("eval")
def evaluate() -> None:
    """Measure experts on held-out data."""


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
@click.option("--min-response", default=0, help="Characters of a response in held-out sets.")
@click.option("--adapter", "adapters", multiple=True, help="NAME=FOLDER; default: the embedded.")
@click.option("--base", default="smollm2-135m-instruct", show_default=True)
@click.option("--rows", default=100, show_default=True, help="At most so many rows of a set.")
@click.option("--max-length", default=512, show_default=True, help="Tokens of one row at most.")
@click.option("--seed", default=0, show_default=True)
@click.option("--out", "target", type=click.Path(path_type=Path), help="Write the cells as JSON.")
def experts(
    sets: tuple[str, ...],
    held_out_sets: tuple[str, ...],
    min_response: int,
    adapters: tuple[str, ...],
    base: str,
    rows: int,
    max_length: int,
    seed: int,
    target: Path | None,
) -> None:
    """Print the matrix: base and adapters against sets, in nats per response token.

    \b
    collegium eval experts --set code=eval/code.jsonl --set legal=eval/legal.jsonl
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from experts.adapters import AdapterError, embedded_adapters, load_adapter
    from experts.evaluation import loss_matrix
    from experts.examples import ExampleError, choose, read_rows, split_rows, tokenise
    from experts.local import adapter_folder
    from experts.store import ModelError, ModelStore

    with readable_errors(ModelError, ExampleError, AdapterError):
        folder = ModelStore().pull(base)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        linears = {
            n: (m.in_features, m.out_features)
            for n, m in model.named_modules()
            if isinstance(m, torch.nn.Linear)
        }
        named = dict(_pairs(adapters)) or {n: f"embedded:{n}" for n in embedded_adapters()}
        loaded = [load_adapter(n, adapter_folder(p), linears, base) for n, p in named.items()]
        domains = {}
        for kept, pairs in ((False, sets), (True, held_out_sets)):
            for name, path in _pairs(pairs):
                found = read_rows([Path(path)])
                if kept:
                    found = [
                        r for r in split_rows(found, 0.03, 0)[1] if len(r.response) > min_response
                    ]
                examples = [e for r in found if (e := tokenise(tokenizer, r, max_length))]
                domains[name] = choose(examples, 10**9, seed)[:rows]
        if not domains:
            raise click.UsageError("give at least one --set NAME=FILE")
        with progress_bar() as bar:
            cells = loss_matrix(model, loaded, domains, seed=seed, progress=bar)
    _show(cells, list(domains))
    if target is not None:
        target.write_text(json.dumps([asdict(cell) for cell in cells], indent=1))


def _pairs(values: tuple[str, ...]) -> list[tuple[str, str]]:
    pairs = []
    for value in values:
        name, equals, path = value.partition("=")
        if not (name and equals and path):
            raise click.UsageError(f"{value!r} must have the form NAME=PATH")
        pairs.append((name, path))
    return pairs


def _show(cells: Sequence[Cell], domains: Sequence[str]) -> None:
    from rich.table import Table

    table = Table("model", *domains)
    for model in dict.fromkeys(cell.model for cell in cells):
        by_domain = {cell.domain: cell for cell in cells if cell.model == model}
        table.add_row(model, *(_text(by_domain[d]) for d in domains))
    out.print(table)


def _text(cell: Cell) -> str:
    interval = f"{cell.change:+.1%} [{cell.low:+.1%}, {cell.high:+.1%}]"
    return f"{cell.loss:.4f}\n{interval}\n{cell.rows} rows"
