"""`collegium route`: explain one decision."""

from __future__ import annotations

import click

from orchestrator.cli.console import out, readable_errors
from orchestrator.wire import RoutingReport


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
@click.option("--json", "as_json", is_flag=True, help="Print the x_routing object.")
def route(
    text: str,
    url: str | None,
    config_path: str | None,
    top_k: int | None,
    top_p: float | None,
    as_json: bool,
) -> None:
    """Show which experts would answer TEXT, with which weight, and why. Nothing is generated.

    \b
    collegium route "May I link GPL code into my program?"
    """
    import os

    from orchestrator.errors import CollegiumError

    if url and config_path:
        raise click.UsageError("--url asks a service, which has its own configuration: drop one.")
    routing = {k: v for k, v in (("top_k", top_k), ("top_p", top_p)) if v is not None}
    address = url or (None if config_path else os.environ.get("COLLEGIUM_BASE_URL"))
    with readable_errors(CollegiumError):
        report = _ask(address, text, routing) if address else _decide(config_path, text, routing)
    if as_json:
        out.print_json(report.model_dump_json())
    else:
        _show(report)


def _ask(url: str, text: str, routing: dict[str, float]) -> RoutingReport:
    from orchestrator import Client

    with Client(base_url=url) as client:
        return client.route(text, routing=routing or None)


def _decide(config_path: str | None, text: str, routing: dict[str, float]) -> RoutingReport:
    import asyncio
    from pathlib import Path

    from experts.store import ModelError
    from orchestrator.combination import Combiner
    from orchestrator.config import Config, ConfigError
    from orchestrator.identity import EVERYONE
    from orchestrator.pipeline import Pipeline
    from orchestrator.replicas import RetrieverReplica, RouterReplica
    from orchestrator.request import ChatRequest
    from orchestrator.task import accept
    from orchestrator.telemetry import Telemetry
    from retrieval.errors import RetrievalError
    from router.gate import GateError
    from router.lineup import VersionError

    with readable_errors(ConfigError, ModelError, GateError, VersionError, RetrievalError):
        config = Config.load(Path(config_path) if config_path else None)
        pipeline = Pipeline(
            config,
            RouterReplica(config),
            RetrieverReplica(config),
            Combiner(config, {}),
            Telemetry(config.telemetry.service_name, "cli"),
        )
    body = {"messages": [{"role": "user", "content": text}], "routing": routing or None}
    task = accept(ChatRequest.model_validate(body), EVERYONE, config)
    return asyncio.run(pipeline.route(task, ()))


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
