"""`collegium serve`: the whole service on this machine, or on a running Ray cluster."""

from __future__ import annotations

import logging
import os
import signal
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.console import err, out, progress_bar, readable_errors

if TYPE_CHECKING:
    from orchestrator.config import Config
    from router.gate import Gate

_READY_SECONDS = 600


@click.command()
@click.option(
    "--config",
    "path",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="YAML file; without it the embedded default is served.",
)
@click.option("--host", help="Address to listen on; the default is loopback only.")
@click.option("--port", type=click.IntRange(1, 65535))
@click.option("--placement", type=click.Choice(["apart", "together"]), help="Overrides the file.")
@click.option("--address", help="A running Ray cluster to deploy to, e.g. `auto`.")
@click.option("--check", is_flag=True, help="Validate the configuration and stop.")
@click.option("--no-index", is_flag=True, help="Do not build the embedded collections.")
@click.option("--verbose", is_flag=True, help="Show what Ray and the replicas log, too.")
def serve(
    path: Path | None,
    host: str | None,
    port: int | None,
    placement: str | None,
    address: str | None,
    check: bool,
    no_index: bool,
    verbose: bool,
) -> None:
    """Serve the experts behind one OpenAI-compatible endpoint. Ctrl-C stops it.

    With --address it is deployed to that cluster, and goes on there when this command is over.

    \b
    collegium serve                          the embedded default on 127.0.0.1:8000
    collegium serve --config my.yaml --check validate only
    """
    from orchestrator.config import Config, ConfigError

    with readable_errors(ConfigError):
        config = _changed(Config.load(path), host, port, placement)
    if check:
        out.print(f"{path or 'embedded default'}: valid, {len(config.experts)} experts")
        return
    _set_switches(config, local=address is None, verbose=verbose)
    if address is None:
        _check_port(config)
    _prepare(config, build_collections=not no_index)
    if address is None:
        _serve_here(config, verbose=verbose)
    else:
        _start(config, {"address": address}, verbose=verbose)
        _greet(config, "`serve shutdown`")


def _changed(config: Config, host: str | None, port: int | None, placement: str | None) -> Config:
    body = config.model_dump()
    body["server"]["host"] = host or body["server"]["host"]
    body["server"]["port"] = port or body["server"]["port"]
    body["placement"] = placement or body["placement"]
    return type(config).check(body)


def _set_switches(config: Config, *, local: bool, verbose: bool) -> None:
    # Ray reads these once, when it is imported.
    switches = {
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": config.server.throughput_optimized,
        "RAY_SERVE_ENABLE_HA_PROXY": config.server.haproxy,
    }
    for name, on in switches.items():
        os.environ.setdefault(name, str(int(on)))
    for source in ("HANDLE", "REPLICA"):
        os.environ.setdefault(f"RAY_SERVE_{source}_AUTOSCALING_METRIC_PUSH_INTERVAL_S", "2")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if local:
        # Ray waits for load balancers to look elsewhere, 30 s; here Ctrl-C would.
        os.environ.setdefault("RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S", "0")
    if verbose:
        os.environ.setdefault("RAY_SERVE_LOG_TO_STDERR", "1")


def _check_port(config: Config) -> None:
    server = config.server
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((server.host, server.port))
        except OSError as error:
            raise click.ClickException(
                f"cannot listen on {server.host}:{server.port} ({error.strerror}). If collegium "
                "runs there already, use it or stop it; else choose another port with --port."
            ) from error


def _prepare(config: Config, *, build_collections: bool) -> None:
    """Fetch models and fill the embedded collections before any process is started."""
    from experts.adapters import AdapterError
    from experts.store import ModelError, ModelStore
    from orchestrator.embedded import fill_collections
    from orchestrator.registry import open_policy, open_scale
    from retrieval.errors import RetrievalError
    from router.evidence import EvidenceError
    from router.gate import GateError
    from router.lineup import VersionError

    store, kinds = ModelStore(), (GateError, EvidenceError, RetrievalError, VersionError)
    with (
        readable_errors(ModelError, AdapterError, *kinds),
        progress_bar() as bar,
    ):
        for model in (*config.models.values(), config.encoder):
            store.pull(model.source, revision=model.revision, progress=bar)
        gate = _acting_gate(config)
        open_policy(config, gate)
        scale = open_scale(config)
        known = set(gate.labels)
        if build_collections and config.retrieval.enabled:
            fill_collections(config, bar)
    silent = {config.generalist, *config.disabled, *known}
    strangers = [
        name
        for name, expert in config.experts.items()
        if name not in silent and not (scale and expert.collections)
    ]
    if strangers:
        err.print(
            f"[yellow]the gate does not know {', '.join(strangers)}: they answer only when a "
            "request names them. `collegium router teach NAME --prompts FILE` teaches it.[/]"
        )


def _acting_gate(config: Config) -> Gate:
    """The gate that will act; where it is broken the service starts with an older version."""
    from orchestrator.registry import open_registry
    from router.lineup import ORIGIN, VersionError

    registry = open_registry(config)
    try:
        return registry.acting()
    except VersionError as error:
        gate = registry.gate(ORIGIN)
        err.print(f"an older version of the router stands in: {error}", markup=False)
        return gate


def _serve_here(config: Config, *, verbose: bool) -> None:
    """Start Ray on this machine, serve until Ctrl-C, and stop it."""
    import ray
    from ray import serve as ray_serve

    from orchestrator.app import APPLICATION

    try:
        _start(config, _local_cluster(), verbose=verbose)
        _greet(config, "Ctrl-C")
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        err.print("stopping")
    finally:
        # Not Serve's own shutdown: Ray reports the controller that it kills as a failed task.
        if ray.is_initialized() and APPLICATION in ray_serve.status().applications:
            ray_serve.delete(APPLICATION)
        ray.shutdown()
        err.print("stopped")


def _start(config: Config, cluster: dict[str, Any], *, verbose: bool) -> None:
    """Connect to a cluster or make one, deploy, and wait until it is ready."""
    import ray
    from ray import serve as ray_serve
    from ray.serve.schema import LoggingConfig

    from orchestrator.app import APPLICATION, graph

    level = logging.INFO if verbose else logging.ERROR
    # Both: Serve's logger has a level of its own, and Ray warns before it reads the argument.
    for name in ("ray", "ray.serve"):
        logging.getLogger(name).setLevel(level)
    server = config.server
    with err.status("starting Ray"):
        ray.init(logging_level=level, log_to_driver=verbose, **cluster)
        ray_serve.start(
            http_options={
                "host": server.host,
                "port": server.port,
                "request_timeout_s": server.request_timeout_s,
            },
            logging_config=LoggingConfig(log_level="INFO" if verbose else "WARNING"),
        )
    # Ray sets handlers of its own; a shell's background job starts with SIGINT ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    target = ray_serve.RunTarget(graph(config), name=APPLICATION, route_prefix="/")
    ray_serve.run_many([target], wait_for_applications_running=False)
    _wait_ready()


def _local_cluster() -> dict[str, Any]:
    return {
        # Said, because Ray would join a cluster of RAY_ADDRESS, or the last one on this machine.
        "address": "local",
        "include_dashboard": False,
        "object_store_memory": 256 * 2**20,
        "_node_ip_address": "127.0.0.1",
    }


def _wait_ready() -> None:
    from ray import serve as ray_serve
    from ray.serve.schema import ApplicationStatus

    from orchestrator.app import APPLICATION

    with progress_bar() as bar:
        deadline = time.monotonic() + _READY_SECONDS
        while time.monotonic() < deadline:
            application = ray_serve.status().applications[APPLICATION]
            states = application.deployments.values()
            healthy = sum(d.status in ("HEALTHY", "UPSCALING", "DOWNSCALING") for d in states)
            bar("start deployments", healthy, len(states))
            if application.status == ApplicationStatus.RUNNING:
                return
            if application.status in ("DEPLOY_FAILED", "UNHEALTHY"):
                raise click.ClickException(f"the service did not start: {application.message}")
            time.sleep(0.5)
    raise click.ClickException(f"the service was not ready within {_READY_SECONDS} s")


def _greet(config: Config, stopper: str) -> None:
    url = f"http://{config.server.host}:{config.server.port}"
    out.print(f"\n[bold]Collegium is ready at {url}[/]  ({stopper} stops it)\n", highlight=False)
    out.print(
        f"curl {url}/v1/chat/completions -H 'content-type: application/json' \\\n"
        '  -d \'{"model": "auto", "messages": [{"role": "user", "content": '
        '"What must I keep when I redistribute software under the BSD licence?"}]}\'\n\n'
        f"collegium chat --url {url}\n",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
