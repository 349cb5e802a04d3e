"""`collegium train router`: the gate, from labelled prompts in JSON Lines files."""

from __future__ import annotations

from pathlib import Path

import click

from orchestrator.cli.console import out, progress_bar, readable_errors

_Files = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("router")
@click.option("--data", "data", required=True, multiple=True, type=_Files, help="Repeatable.")
@click.argument("more", nargs=-1, type=_Files)
@click.option("--eval", "evaluation", multiple=True, type=_Files, help="Only measured on.")
@click.option("--out", "folder", default="gate", type=click.Path(path_type=Path), show_default=True)
@click.option("--exclude-license", "exclude", multiple=True, help="Adds to the built-in list.")
@click.option("--encoder", default="all-minilm-l6-v2", show_default=True)
@click.option("--epochs", default=24, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--threads", default=2, show_default=True)
@click.option(
    "--cache",
    default=".gate-vectors.sqlite",
    type=click.Path(path_type=Path),
    show_default=True,
    help="Keeps sentence vectors, so that a second run is quick.",
)
@click.option(
    "--losses",
    type=_Files,
    help="Table of `collegium train losses`: the gate learns from it, too, which expert predicts "
    "an answer best.",
)
@click.option(
    "--variations/--no-variations",
    default=True,
    show_default=True,
    help="Learn every prompt again: with slips, wrapped, behind other text, with orders to route "
    "it elsewhere, and before a follow-up.",
)
@click.option(
    "--features",
    multiple=True,
    type=_Files,
    help="Corrected decisions without text, of `collegium router rows --features`. Repeatable.",
)
@click.option(
    "--features-weight",
    default=1.0,
    show_default=True,
    type=click.FloatRange(0, min_open=True),
    help="What each of them counts beside a prompt.",
)
@click.option(
    "--generalist", default="general", show_default=True, help="The label of what is no expert's."
)
def train_router(
    data: tuple[Path, ...],
    more: tuple[Path, ...],
    evaluation: tuple[Path, ...],
    folder: Path,
    exclude: tuple[str, ...],
    encoder: str,
    epochs: int,
    seed: int,
    threads: int,
    cache: Path,
    losses: Path | None,
    variations: bool,
    features: tuple[Path, ...],
    features_weight: float,
    generalist: str,
) -> None:
    """Train the gate on labelled prompts and write it with its model card.

    Rows are JSON Lines with `prompt` (or `text`) and `domain`, or `domains` for prompts that belong
    to two experts. Name the folder as `router.weights` in the configuration.

    A first stage is trained along, where it can settle prompts by script and spelling alone.

    \b
    collegium train router --data code.jsonl --data legal.jsonl --out my-gate
    """
    from experts.store import ModelError, ModelStore
    from retrieval.encoder import Encoder
    from router.dataset import DatasetError
    from router.feature_rows import read_feature_rows
    from router.gate import GateError
    from router.losses import LossError, read_losses
    from router.training import EXCLUDED_LICENSES, train_from_files

    kinds = (ModelError, DatasetError, GateError, LossError)
    with readable_errors(*kinds), progress_bar() as bar:
        model = Encoder(ModelStore().pull(encoder, progress=bar), threads=threads)
        corrections = read_feature_rows(features, encoder, model.dimensions, features_weight)
        gate, report = train_from_files(
            (*data, *more),
            folder,
            model.encode,
            encoder_name=encoder,
            evaluation=evaluation,
            excluded_licenses=(*EXCLUDED_LICENSES, *exclude),
            seed=seed,
            epochs=epochs,
            cache=cache,
            progress=bar,
            losses=None if losses is None else read_losses(losses),
            variations=variations,
            generalist=generalist,
            corrections=corrections if len(corrections) else None,
        )
    out.print_json(data=report.metadata(), default=str)
    out.print(f"{folder}: gate {gate.version} for {', '.join(gate.labels)}")
