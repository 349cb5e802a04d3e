"""`collegium eval router`: the proof of a router, as a page, figures and plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.console import out, progress_bar, readable_errors
from orchestrator.cli.report_folder import write_report

if TYPE_CHECKING:
    from router.goals import Finding

_Files = click.Path(exists=True, dir_okay=False, path_type=Path)
_Folder = click.Path(file_okay=False, path_type=Path)


@click.command("router")
@click.option("--data", required=True, multiple=True, type=_Files, help="Rows to measure on.")
@click.argument("more", nargs=-1, type=_Files)
@click.option(
    "--train",
    multiple=True,
    type=_Files,
    help="Rows that the gate was trained on, for --peers, --apart and the languages it never saw.",
)
@click.option(
    "--losses",
    multiple=True,
    type=_Files,
    help="The experts' losses of known answers, for regret. Repeatable; rows of several files add.",
)
@click.option("--gate", type=_Folder, help="A gate's folder; default: the configuration's.")
@click.option("--config", type=_Files, help="For policy, experts and encoder.")
@click.option("--peers", is_flag=True, help="Compare with other routers; needs --train.")
@click.option(
    "--semantic-router",
    metavar="PYTHON",
    help="An interpreter that has aurelio's semantic-router 1, to have it among the peers. It "
    "needs another openai than collegium does, hence an environment of its own.",
)
@click.option(
    "--apart",
    is_flag=True,
    help="Also train a gate without the generalist's rows, and ask it what it does not know; "
    "needs --train.",
)
@click.option(
    "--ablate",
    is_flag=True,
    help="Also train the gate again without each of its parts, and tell what each is worth; needs "
    "--train, and about a minute for each part.",
)
@click.option(
    "--ablate-source",
    "ablate_sources",
    multiple=True,
    default=("Collegium handwritten prompts",),
    show_default=True,
    help="Source of training rows whose worth --ablate tells, too. Repeatable.",
)
@click.option("--goals", type=_Files, help='JSON: {"accuracy.value": ">= 0.97", ...}.')
@click.option("--check", is_flag=True, help="End with status 1 where a goal is missed.")
@click.option("--out", "folder", required=True, type=_Folder, help="Where the report is written.")
@click.option(
    "--language-expert",
    default="multilingual",
    show_default=True,
    help="The expert that prompts in languages absent from --train should reach.",
)
@click.option(
    "--robust-rows",
    default=100,
    type=click.IntRange(min=0),
    show_default=True,
    help="Rows of each domain to change in eleven ways; 0 leaves that out.",
)
@click.option("--resamples", default=1000, type=click.IntRange(min=10), show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--threads", default=2, type=click.IntRange(min=1), show_default=True)
@click.option(
    "--cache",
    default=".gate-vectors.sqlite",
    type=click.Path(path_type=Path),
    show_default=True,
    help="Keeps sentence vectors; the same file as `train router` uses.",
)
def evaluate_router(more: tuple[Path, ...], **options: Any) -> None:  # noqa: ANN401
    """Prove a router on labelled prompts: write report.md, report.json and plots.

    Rows are as for `train router`. Accuracy, calibration, unfamiliar prompts and robustness need
    labels alone; regret and its controls need --losses.

    \b
    collegium eval router --data eval.jsonl --train train.jsonl --peers --out report
    """
    goals, check, folder = options.pop("goals"), options.pop("check"), options.pop("folder")
    if (options["peers"] or options["apart"]) and not options["train"]:
        raise click.UsageError("--peers and --apart learn from --train FILE: give at least one.")
    if options["ablate"] and not options["train"]:
        raise click.UsageError("--ablate trains on --train FILE: give at least one.")
    if options["semantic_router"] and not options["peers"]:
        raise click.UsageError("--semantic-router is one of the peers: give --peers too.")
    if check and goals is None:
        raise click.UsageError("--check needs --goals FILE to check.")
    found, findings = _run({**options, "data": (*options["data"], *more)}, goals)
    _write(folder, found, findings)
    _show(folder, found, findings)
    if check and not all(finding.reached for finding in findings):
        raise click.exceptions.Exit(1)


def _run(
    options: Mapping[str, Any], goals_file: Path | None
) -> tuple[dict[str, Any], Sequence[Finding]]:
    from experts.store import ModelError
    from orchestrator.config import ConfigError
    from orchestrator.evidence import Sources, ablation, describe, gather
    from retrieval.errors import RetrievalError
    from router.dataset import DatasetError
    from router.gate import GateError
    from router.goals import GoalError, check_goals, read_goals
    from router.losses import LossError
    from router.peers import PeerError
    from router.proof import prove

    kinds = (ConfigError, DatasetError, GateError, GoalError, LossError, ModelError, PeerError)
    with readable_errors(*kinds, RetrievalError), progress_bar() as bar:
        # What may be refused is read first: encoding takes minutes.
        goals = read_goals(goals_file) if goals_file else ()
        sources = Sources(**options)
        evidence = gather(sources, bar)
        found = {"data": describe(sources, evidence.rows), **prove(evidence, bar)}
        if (parts := ablation(sources, evidence, bar)) is not None:
            found["ablation"] = parts
        return found, check_goals(goals, found)


def _write(folder: Path, found: dict[str, Any], findings: Sequence[Finding]) -> None:
    from router.report import markdown

    goals = [asdict(finding) for finding in findings]
    told = {**found, "goals": goals}
    write_report(folder, told, lambda plots: markdown(found, plots, goals))


def _show(folder: Path, found: dict[str, Any], findings: Sequence[Finding]) -> None:
    from rich.table import Table

    from router.cells import interval, number
    from router.report import REPORT_FILE

    headline = Table("figure", "value")
    headline.add_row("accuracy", interval(found["accuracy"]))
    headline.add_row("macro-F1", interval(found["macro_f1"]))
    headline.add_row("calibration error", number(found["calibration"]["ece"], 4))
    if found["first_stage"] is not None:
        headline.add_row("settled by the first stage", interval(found["first_stage"]["share"]))
        headline.add_row("accuracy lost by it", interval(found["first_stage"]["loss"], 4))
    if found["regret"] is not None:
        headline.add_row("regret ÷ best single", interval(found["regret"]["over_best_single"]))
    out.print(headline)
    if findings:
        goals = Table("metric", "value", "goal", "reached")
        for one in findings:
            goals.add_row(
                one.metric, number(one.value, 4), one.bound, "yes" if one.reached else "no"
            )
        out.print(goals)
    out.print(f"{folder / REPORT_FILE}: router {found['router']['version']}", soft_wrap=True)
