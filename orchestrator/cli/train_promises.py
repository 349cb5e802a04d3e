"""`collegium train promises`: what a gate promises of its regret, with the experts of now."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.console import err, out, progress_bar, readable_errors

if TYPE_CHECKING:
    from collections.abc import Mapping

_Files = click.Path(exists=True, dir_okay=False, path_type=Path)
_Folder = click.Path(file_okay=False, path_type=Path)


@click.command("promises")
@click.argument("source", metavar="GATE", type=click.Path(exists=True, path_type=Path))
@click.option("--data", "data", required=True, multiple=True, type=_Files, help="Repeatable.")
@click.option("--losses", required=True, type=_Files, help="Of `collegium train losses --apart`.")
@click.option(
    "--cache",
    default=".gate-vectors.sqlite",
    type=click.Path(path_type=Path),
    show_default=True,
    help="Keeps sentence vectors, so that a second run is quick.",
)
@click.option("--out", "folder", required=True, type=_Folder, help="Where the gate is written.")
@click.option("--generalist", default="general", show_default=True)
@click.option("--threads", default=2, type=click.IntRange(min=1), show_default=True)
def train_promises(
    source: Path,
    data: tuple[Path, ...],
    losses: Path,
    cache: Path,
    folder: Path,
    generalist: str,
    threads: int,
) -> None:
    """Find how sure the gate in folder GATE must be for large regret to be rare (`max_risk`).

    An expert that was trained again loses other amounts than before: the gate may stay, its
    promises may not. Only rows that the gate was not fitted to are read; name the files it was
    trained on. Experts that were trained on them too look better there than elsewhere.

    \b
    collegium train losses --apart --data code.jsonl --data legal.jsonl --out losses.jsonl
    collegium train promises my-gate --data code.jsonl --data legal.jsonl \\
        --losses losses.jsonl --out my-gate-promised
    """
    from experts.store import ModelError, ModelStore
    from retrieval.encoder import Encoder
    from router.card import write_promised_card
    from router.conformal import METADATA_KEY
    from router.dataset import DatasetError, read_prompts
    from router.gate import Gate, GateError
    from router.losses import LossError, read_losses
    from router.promising import with_promises
    from router.training import remember

    kinds = (ModelError, DatasetError, GateError, LossError)
    with readable_errors(*kinds), progress_bar() as bar:
        gate = Gate.load(source)
        table = read_losses(losses)
        rows = [row for row in read_prompts(data) if table.of(row.text)]
        name = gate.encoder or "all-minilm-l6-v2"
        encoder = Encoder(ModelStore().pull(name, progress=bar), threads=threads)
        memory = remember(rows, encoder.encode, name, cache, bar)
        promised = with_promises(gate, rows, memory, generalist, table)
        promised.save(folder)
        write_promised_card(promised, source, folder)
    _show(promised.metadata[METADATA_KEY])
    err.print(f"{folder}: gate {promised.version}", soft_wrap=True)


def _show(found: Mapping[str, Any]) -> None:
    from rich.table import Table

    table = Table("max_risk", "the gate must be this sure")
    for alpha, threshold in found["thresholds"].items():
        table.add_row(alpha, "cannot be promised" if threshold is None else f"{threshold:.4f}")
    out.print(table)
    out.print(f"regret over {found['epsilon']:g} nats a token, {found['rows']} rows")
