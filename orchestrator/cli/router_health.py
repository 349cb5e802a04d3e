"""`collegium router health`: experts that nobody asks, that are asked the same, and drift."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table
from rich.text import Text

from orchestrator.cli.config_option import config_option, load_config
from orchestrator.cli.console import out, readable_errors
from orchestrator.cli.moment import read_moment
from orchestrator.cli.registry import readable, registry_of

if TYPE_CHECKING:
    from router.comparison import Estimate
    from router.drift import Drift
    from router.health import Health


@click.command()
@click.option(
    "--since",
    default="7d",
    show_default=True,
    callback=read_moment,
    help="30m, 12h, 7d, 2w, or a time in ISO 8601 (UTC unless it says).",
)
@click.option("--json", "as_json", is_flag=True)
@config_option
def health(since: float, as_json: bool, path: Path | None) -> None:
    """Show what recent traffic says about the experts and the version of the router that acts.

    Dead: experts that nobody asks. Twins: experts that are asked the same. Drift: requests other
    than those that the router was trained for, in who is asked (mix) and in what is asked
    (content). Routers write down once a minute what they saw.
    """
    from router.gate import GateError
    from router.health import examine
    from router.traffic_record import TRAFFIC_FOLDER, read_records

    config, begin = load_config(path), since
    with readable(), readable_errors(GateError):
        registry = registry_of(config)
        name = registry.lineup().current
        folder = registry.folder / TRAFFIC_FOLDER
        records = [record.since(begin) for record in read_records(folder)]
        found = examine(
            records, registry.gate(name), list(config.experts), config.generalist, config.disabled
        )
    if as_json:
        out.print_json(data=_plain(found))
        return
    out.print(
        f"{found.requests} requests since {datetime.fromtimestamp(begin, UTC):%Y-%m-%d %H:%M} UTC, "
        f"{found.sampled} of them sampled; version {name} acts"
    )
    _show_uses(found)
    _show_pairs(found)
    _show_drift(found.drift)


def _plain(found: Health) -> dict[str, Any]:
    """The figures with the verdicts, which are no fields."""
    body = asdict(found)
    for shown, use in zip(body["uses"], found.uses, strict=True):
        shown["dead"] = use.dead
    for shown, pair in zip(body["pairs"], found.pairs, strict=True):
        shown["twins"] = pair.twins
    if found.drift is not None:
        body["drift"]["drifted"] = found.drift.drifted
    return body


def _show_uses(found: Health) -> None:
    table = Table("expert", "chosen", "share", "named", "")
    for use in sorted(found.uses, key=lambda use: -use.chosen):
        state = Text("disabled", style="dim") if use.disabled else Text()
        if use.dead and use.share is not None:
            state = Text(f"dead: at most {use.share.high:.2%} of the requests", style="red")
        row = (str(use.chosen), _interval(use.share), str(use.named), state)
        table.add_row(Text(use.name), *row)
    out.print(table)


def _show_pairs(found: Health) -> None:
    table = Table("most alike", "", "meant together", "correlation", "cosine", "")
    for pair in found.pairs:
        together = f"{_interval(pair.together)} of {pair.requests}" if pair.together else "-"
        numbers = (_number(pair.correlation), _number(pair.cosine))
        state = Text("twins", style="red") if pair.twins else Text()
        table.add_row(Text(pair.one), Text(pair.other), Text(together), *numbers, state)
    out.print(table)


def _show_drift(drift: Drift | None) -> None:
    if drift is None:
        out.print(
            "drift: not measured. The gate that acts holds no background; `collegium train router` "
            "writes one."
        )
        return
    if drift.mix is None:
        out.print("drift: too few sampled requests to tell.")
        return
    mix, content = drift.mix, drift.content
    out.print(f"mix: stability index {mix.value:.3f}, p {mix.p_value:.3f}, {mix.rows} requests")
    if content is None:
        out.print("content: too few requests of the experts that the background knows.")
    else:
        told = f"discrepancy {content.value:.5f}, p {content.p_value:.3f}, {content.rows} of each"
        out.print(f"content: {told} side")
    if drift.drifted:
        out.print(Text("drift: traffic is not what the router was trained for", style="red"))
    else:
        out.print("drift: none beyond chance")


def _interval(found: Estimate | None) -> Text:
    if found is None:
        return Text("-")
    return Text(f"{found.value:.2%} [{found.low:.2%}, {found.high:.2%}]")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
