"""`collegium train evidence`: how much what a search finds weighs in the choice of experts."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.cli.console import out, progress_bar, readable_errors

if TYPE_CHECKING:
    from router.evidence_fit import Fit

_Files = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("evidence")
@click.option("--data", "data", required=True, multiple=True, type=_Files, help="Repeatable.")
@click.argument("more", nargs=-1, type=_Files)
@click.option("--config", "config_path", type=_Files, help="Experts, collections, encoder, gate.")
@click.option(
    "--out",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where evidence.json is written; default: beside the router's versions, from where a "
    "service with `router.evidence` reads it when it starts.",
)
@click.option("--threads", default=2, type=click.IntRange(min=1), show_default=True)
def train_evidence(
    data: tuple[Path, ...],
    more: tuple[Path, ...],
    config_path: Path | None,
    folder: Path | None,
    threads: int,
) -> None:
    """Fit slope and centre of retrieval evidence to labelled prompts, and write them.

    Rows are JSON Lines with `prompt` and `expert`. Take such that the gate was not trained on, with
    some of the generalist's among them: on prompts that it knows by heart a search adds nothing.

    \b
    collegium train evidence --data questions.jsonl --config my.yaml
    """
    from experts.store import ModelError
    from orchestrator.config import Config, ConfigError
    from orchestrator.registry import open_registry
    from orchestrator.sightings import gather_sightings
    from retrieval.errors import RetrievalError
    from router.dataset import DatasetError, read_prompts
    from router.evidence import EvidenceError, Scale
    from router.evidence_fit import fit_scale
    from router.gate import GateError
    from router.lineup import VersionError

    kinds = (ConfigError, DatasetError, EvidenceError, GateError, ModelError, VersionError)
    with readable_errors(*kinds, RetrievalError), progress_bar() as bar:
        config = Config.load(config_path)
        rows = list(read_prompts((*data, *more)))
        fit = fit_scale(gather_sightings(config, rows, threads, bar))
        figures = {k: v for k, v in asdict(fit).items() if k != "scale"}
        told = {"rows": fit.rows, "encoder": config.encoder.source, "figures": figures}
        scale = Scale(fit.scale.slope, fit.scale.centre, told)
        path = scale.save(folder or open_registry(config).folder)
    _show(fit)
    state = "is" if config.router.evidence else "is not yet"
    out.print(f"{path}: written; `router.evidence` {state} switched on", soft_wrap=True)


def _show(fit: Fit) -> None:
    from rich.table import Table

    table = Table("figure", "the gate alone", "with evidence, held out")
    table.add_row(
        "accuracy (most probable)", f"{fit.accuracy_before:.4f}", f"{fit.accuracy_after:.4f}"
    )
    table.add_row("cross entropy, nats", f"{fit.loss_before:.4f}", f"{fit.loss_after:.4f}")
    table.add_row("another expert leads", "", f"{fit.moved:.4f} of {fit.rows} rows")
    out.print(table)
    out.print(
        f"slope {fit.scale.slope:g} nats per unit of cosine above centre {fit.scale.centre:g}"
    )
