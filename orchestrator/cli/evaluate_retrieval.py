"""`collegium eval retrieval`: how good search and the answers from it are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.canary import CANARY
from orchestrator.cli.console import out, progress_bar, readable_errors
from orchestrator.cli.report_folder import write_report

if TYPE_CHECKING:
    from router.goals import Finding

_Files = click.Path(exists=True, dir_okay=False, path_type=Path)
_Folder = click.Path(file_okay=False, path_type=Path)


@click.command("retrieval")
@click.option(
    "--data",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder with docs.jsonl and queries.jsonl, or of such folders. They are put into "
    "collections under --work.",
)
@click.option("--only", multiple=True, help="Of --data, only this folder. Repeatable.")
@click.option("--collection", help="A collection that is there; with --queries.")
@click.option("--queries", type=_Files, help="JSON Lines: query, relevant_ids, answer, lang.")
@click.option(
    "--lang", "languages", multiple=True, help="Only questions in this language. Repeatable."
)
@click.option("--config", type=_Files, help="For encoder, search settings, collections, experts.")
@click.option("--work", type=_Folder, help="Where collections of --data are made and kept.")
@click.option(
    "--answers",
    metavar="URL",
    help="Also ask this service, with and without its collections; `embedded` asks the experts of "
    "--config in this process.",
)
@click.option(
    "--injected",
    help="A collection with the same documents, an instruction buried in each; with `--answers "
    "embedded` and --data it is made.",
)
@click.option("--canary", default=CANARY, show_default=True, help="The word it demands.")
@click.option("--model", default="auto", show_default=True, help="Whom --answers asks.")
@click.option("--max-tokens", default=64, type=click.IntRange(min=1), show_default=True)
@click.option(
    "--rows",
    default=200,
    type=click.IntRange(min=1),
    show_default=True,
    help="At most so many questions of a collection are asked for answers.",
)
@click.option("--goals", type=_Files, help='JSON: {"summary.english.gain.value": ">= 1.06", ...}.')
@click.option("--check", is_flag=True, help="End with status 1 where a goal is missed.")
@click.option("--out", "folder", required=True, type=_Folder, help="Where the report is written.")
@click.option("--resamples", default=1000, type=click.IntRange(min=10), show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option(
    "--cache",
    default=".retrieval-vectors.sqlite",
    type=click.Path(path_type=Path),
    show_default=True,
    help="Keeps the vectors of --data.",
)
@click.option("--threads", default=2, type=click.IntRange(min=1), show_default=True)
def evaluate_retrieval(folder: Path, goals: Path | None, check: bool, **options: Any) -> None:  # noqa: ANN401
    """Measure search, and answers from what it finds: write report.md, report.json and plots.

    Every second question tunes the weight of meaning against words, the figures are of the others.
    Documents are `id`, `title`, `text`; further keys are ignored.

    \b
    collegium eval retrieval --collection handbook --queries questions.jsonl --out report
    """
    pair = options["collection"] is not None and options["queries"] is not None
    if (options["data"] is None) != pair:
        raise click.UsageError("Give --data DIR, or --collection NAME with --queries FILE.")
    if check and goals is None:
        raise click.UsageError("--check needs --goals FILE to check.")
    found, findings = _run(options, goals)
    _write(folder, found, findings)
    if check and not all(finding.reached for finding in findings):
        raise click.exceptions.Exit(1)


def _run(
    options: dict[str, Any], goals_file: Path | None
) -> tuple[dict[str, Any], Sequence[Finding]]:
    from experts.generation import ExpertError
    from experts.store import ModelError
    from orchestrator.config import ConfigError
    from orchestrator.errors import CollegiumError
    from orchestrator.quiz import QuizError
    from orchestrator.retrieval_evidence import Wanted, prove_retrieval
    from retrieval.errors import RetrievalError
    from router.goals import GoalError, check_goals, read_goals

    kinds = (CollegiumError, ConfigError, ExpertError, GoalError, ModelError, QuizError)
    with readable_errors(*kinds, RetrievalError, UnicodeDecodeError), progress_bar() as bar:
        goals = read_goals(goals_file) if goals_file else ()
        found = prove_retrieval(Wanted(**options), bar)
        return found, check_goals(goals, found)


def _write(folder: Path, found: dict[str, Any], findings: Sequence[Finding]) -> None:
    from rich.table import Table

    from orchestrator.retrieval_plots import PLOTS
    from orchestrator.retrieval_report import markdown
    from router.cells import interval, number

    goals = [asdict(finding) for finding in findings]
    page = write_report(
        folder, {**found, "goals": goals}, lambda drawn: markdown(found, drawn, goals), PLOTS
    )
    table = Table("over collections", "search", "hit@5", "nDCG@10")
    for name, one in found["summary"].items():
        for way, measured in (one or {"ways": {}})["ways"].items():
            cells = interval(measured["hit@5"]), interval(measured["ndcg@10"])
            table.add_row(name.replace("_", " "), way, *cells)
    out.print(table)
    for finding in findings:
        verdict = "reached" if finding.reached else "missed"
        out.print(f"{finding.metric}: {number(finding.value, 4)} ({finding.bound}) {verdict}")
    out.print(str(page), soft_wrap=True)
