"""`collegium router rows` and `estimate`: what the log of decisions teaches."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.cli.config_option import config_option, load_config
from orchestrator.cli.console import out, readable_errors
from orchestrator.cli.moment import read_moment

if TYPE_CHECKING:
    from orchestrator.appraisal import Estimated
    from orchestrator.config import Config
    from router.intervals import Interval
    from router.logged_decision import LoggedDecision
    from router.off_policy import Appraisal

_File = click.Path(dir_okay=False, path_type=Path)


_since = click.option(
    "--since", callback=read_moment, help="2026-11-01, or an age: 30m, 12h, 7d, 2w."
)
_tenant = click.option("--tenant", help="Decisions of this tenant alone.")


@click.command()
@click.option("--out", "target", required=True, type=_File, help="Rows with their domain.")
@click.option(
    "--to-label", type=_File, help="Rows without; default: OUT with .to-label before .jsonl"
)
@click.option(
    "--features", type=_File, help="Also what was read of those without text: safetensors."
)
@click.option(
    "--below",
    default=0.6,
    show_default=True,
    type=click.FloatRange(0, 1),
    help="Decisions whose best probability is smaller are doubtful.",
)
@_since
@_tenant
@config_option
def rows(
    target: Path,
    to_label: Path | None,
    features: Path | None,
    below: float,
    since: float,
    tenant: str | None,
    path: Path | None,
) -> None:
    """Write corrected and doubtful decisions as JSON Lines for `collegium train router`.

    OUT gets those for which feedback named an expert. Those without go into a file of their own,
    with `domain` null and the candidates beside it: they are doubtful, or were scored below 0. Fill
    in `domain`, and it is training data, too; it stays when the file is written again.

    \b
    collegium router rows --out corrected.jsonl --since 30d
    collegium train router --data corrected.jsonl --data questions.jsonl --out my-gate

    With --features decisions without text are of use, too: `collegium train router --features FILE`
    fits the gate to what it read of them.
    """
    from orchestrator.decision_log import LogError
    from orchestrator.lessons import learn, write_features, write_rows

    other = to_label or target.with_name(f"{target.stem}.to-label.jsonl")
    config = load_config(path)
    with readable_errors(LogError, OSError, ValueError):
        lessons = learn(_read(config, since, tenant), below)
        ready = write_rows(target, lessons.corrected)
        open_ = write_rows(other, lessons.doubtful, labelled=True)
        encoder = config.encoder.source
        kept = write_features(features, lessons.corrected, encoder) if features else 0
    _say(f"{target}: {ready} rows with a domain, for `collegium train router --data {target}`")
    _say(f"{other}: {open_} rows to be labelled: fill in `domain`")
    if features:
        _say(f"{features}: features of {kept} corrected decisions without text")
    if lessons.without_text:
        _say(
            f"{lessons.without_text} more have no text and were left out: the service keeps the "
            "text of decisions from the moment that `feedback.keep_text: true` is in its "
            "configuration."
        )


@click.command()
@click.argument("name")
@click.option("--resamples", default=1000, show_default=True, type=click.IntRange(min=10))
@click.option("--seed", default=0, show_default=True)
@click.option("--json", "as_json", is_flag=True)
@_since
@_tenant
@config_option
def estimate(
    name: str,
    resamples: int,
    seed: int,
    as_json: bool,
    since: float,
    tenant: str | None,
    path: Path | None,
) -> None:
    """Estimate the mean score that version NAME would have got, from the log of decisions.

    Needs scores (`/v1/feedback`), and decisions that were left to chance (`router.explore`):
    without those, it can only look at requests on which NAME agrees with what acted.
    """
    from orchestrator.appraisal import estimate_version
    from orchestrator.decision_log import LogError
    from router.gate import GateError
    from router.lineup import VersionError

    config = load_config(path)
    with readable_errors(LogError, VersionError, GateError, OSError):
        log = _read(config, since, tenant, rated=True)
        found = estimate_version(config, name, log, resamples, seed)
    if as_json:
        out.print_json(json.dumps(asdict(found)))
        return
    if found.appraisal is None:
        raise click.ClickException(f"no decision with a score can be replayed.{_left_out(found)}")
    _show(found, found.appraisal)


def _read(
    config: Config, since: float, tenant: str | None, *, rated: bool = False
) -> Iterator[LoggedDecision]:
    from orchestrator.decision_log import log_file, read_log

    file = log_file(config.feedback)
    if not file.exists():
        raise click.ClickException(
            f"there is no log of decisions at {file}: it begins with the first request to a "
            "service whose configuration has `feedback.enabled: true`."
        )
    return read_log(file, since, tenant, rated=rated)


def _show(found: Estimated, appraisal: Appraisal) -> None:
    from rich.table import Table

    _say(
        f"version {found.version} ({found.hash}) on {appraisal.scored} decisions with a score, "
        f"{appraisal.random} of them with chance in force"
    )
    table = Table("mean score, -1 to 1", "estimate", "95 % interval")
    for words, interval in _lines(appraisal):
        table.add_row(words, *_cells(interval))
    out.print(table)
    _say(
        f"agrees on {appraisal.agreeing:.1%}; the estimates are worth {appraisal.effective:.0f} "
        f"rows; {appraisal.unseen:.1%} of its choices could not have been logged"
    )
    if found.left_out:
        _say(_left_out(found).strip())
    for warning in appraisal.warnings:
        out.print(f"warning: {warning}", style="yellow", markup=False, soft_wrap=True)


def _lines(appraisal: Appraisal) -> Iterator[tuple[str, Interval | None]]:
    yield "of what acted", appraisal.logged
    yield "doubly robust", appraisal.doubly_robust
    yield "self-normalised inverse propensity", appraisal.self_normalised
    yield "inverse propensity", appraisal.inverse_propensity
    yield "replay: where both agree", appraisal.replay
    yield "gain, doubly robust", appraisal.gain


def _cells(interval: Interval | None) -> tuple[str, str]:
    if interval is None:
        return "-", ""
    return f"{interval.value:+.4f}", f"{interval.low:+.4f} to {interval.high:+.4f}"


def _left_out(found: Estimated) -> str:
    reasons = "; ".join(f"{count}: {why}" for why, count in found.left_out.items())
    return f" Left out: {reasons}." if reasons else ""


def _say(words: str) -> None:
    out.print(words, markup=False, highlight=False, soft_wrap=True)
