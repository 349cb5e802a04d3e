"""`collegium route`: explain one decision."""

from __future__ import annotations

from collections.abc import Mapping

import click

from orchestrator.cli.console import out, readable_errors
from orchestrator.wire import RoutingReport

Routing = Mapping[str, object]


@click.command()
@click.argument("text")
@click.option("--url", help="Ask a running service; default: $COLLEGIUM_BASE_URL, or decide here.")
@click.option(
    "--config",
    "config_path",
    type=click.Path(exists=True, dir_okay=False),
    help="Configuration to decide with, where no service is asked.",
)
@click.option("--top-k", type=click.IntRange(1))
@click.option("--top-p", type=click.FloatRange(0, 1, min_open=True))
@click.option("--session", help="As a follow-up in this session of the service.")
@click.option("--max-cost", type=click.FloatRange(0), help="USD that the answer may cost.")
@click.option("--deadline-ms", type=click.IntRange(1), help="Milliseconds that it may take.")
@click.option("--locale", help="BCP 47 tag of the reader's language, such as pt-BR.")
@click.option("--prefer", multiple=True, help="NAME=NUMBER from -1 to 1. Repeatable.")
@click.option("--json", "as_json", is_flag=True, help="Print the x_routing object.")
def route(
    text: str, url: str | None, config_path: str | None, as_json: bool, **options: object
) -> None:
    """Show which experts would answer TEXT, with which weight, and why. Nothing is generated.

    \b
    collegium route "May I link GPL code into my program?"
    collegium route "Sort a list" --max-cost 0.001 --prefer code=0.5
    """
    import os

    from orchestrator.errors import CollegiumError

    if url and config_path:
        raise click.UsageError("--url asks a service, which has its own configuration: drop one.")
    routing = _routing(options)
    address = url or (None if config_path else os.environ.get("COLLEGIUM_BASE_URL"))
    with readable_errors(CollegiumError):
        report = _ask(address, text, routing) if address else _decide(config_path, text, routing)
    if as_json:
        out.print_json(report.model_dump_json())
    else:
        _show(report)


def _routing(options: Mapping[str, object]) -> Routing:
    """The options that were given, by their names in a request."""
    prefer = options["prefer"]
    wishes = dict(_preference(wish) for wish in prefer) if isinstance(prefer, tuple) else {}
    named = {**options, "prefer": None, "preferences": wishes or None}
    return {key: value for key, value in named.items() if value is not None}


def _preference(wish: str) -> tuple[str, float]:
    name, _, number = wish.partition("=")
    try:
        value = float(number)
    except ValueError:
        name = ""
    if not name:
        raise click.UsageError(f"--prefer {wish!r} must have the form NAME=NUMBER")
    return name, value


def _ask(url: str, text: str, routing: Routing) -> RoutingReport:
    from orchestrator import Client

    with Client(base_url=url) as client:
        return client.route(text, routing=routing or None)


def _decide(config_path: str | None, text: str, routing: Routing) -> RoutingReport:
    import asyncio
    from pathlib import Path

    from pydantic import ValidationError

    from experts.store import ModelError
    from orchestrator.combination import Combiner
    from orchestrator.config import Config, ConfigError
    from orchestrator.errors import from_validation
    from orchestrator.identity import EVERYONE
    from orchestrator.pipeline import Pipeline
    from orchestrator.replicas import RetrieverReplica, RouterReplica
    from orchestrator.request import ChatRequest
    from orchestrator.task import accept
    from orchestrator.telemetry import Telemetry
    from retrieval.errors import RetrievalError
    from router.evidence import EvidenceError
    from router.gate import GateError
    from router.lineup import VersionError

    body = {"messages": [{"role": "user", "content": text}], "routing": routing or None}
    try:
        request = ChatRequest.model_validate(body)
    except ValidationError as error:
        raise from_validation(error) from error
    kinds = (EvidenceError, GateError, VersionError)
    with readable_errors(ConfigError, ModelError, RetrievalError, *kinds):
        config = Config.load(Path(config_path) if config_path else None)
        pipeline = Pipeline(
            config,
            RouterReplica(config, notes=False),
            RetrieverReplica(config),
            Combiner(config, {}),
            Telemetry(config.telemetry.service_name, "cli"),
        )
    return asyncio.run(pipeline.route(accept(request, EVERYONE, config), ()))


def _show(report: RoutingReport) -> None:
    from rich.table import Table

    table = Table("candidate", "probability", "weight")
    for candidate in report.candidates:
        style = "bold" if candidate.weight else "dim"
        weight = f"{candidate.weight:.3f}" if candidate.weight else "-"
        table.add_row(candidate.name, f"{candidate.probability:.3f}", weight, style=style)
    out.print(table)
    fallback = ", fallback" if report.fallback else ""
    out.print(f"k {report.k}, mode {report.mode}{fallback}, router {report.router_version}")
    out.print(f"reason: {report.reason}", soft_wrap=True, markup=False)
    out.print(f"routed in {report.timings_ms.get('route', 0):.1f} ms")
