"""`collegium serve`: the whole service on this machine, or on a running Ray cluster."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

import click

from orchestrator.cli.console import err, out, progress_bar, readable_errors
from orchestrator.config import Config, ConfigError, Placement

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
@click.option(
    "--placement", type=click.Choice([p.value for p in Placement]), help="Overrides the file."
)
@click.option("--address", help="A running Ray cluster to deploy to, e.g. `auto`.")
@click.option("--check", is_flag=True, help="Validate the configuration and stop.")
@click.option("--no-index", is_flag=True, help="Do not build the embedded collections.")
def serve(
    path: Path | None,
    host: str | None,
    port: int | None,
    placement: str | None,
    address: str | None,
    check: bool,
    no_index: bool,
) -> None:
    """Serve the experts behind one OpenAI-compatible endpoint. Ctrl-C stops it.

    \b
    collegium serve                          the embedded default on 127.0.0.1:8000
    collegium serve --config my.yaml --check validate only
    """
    with readable_errors(ConfigError):
        config = _changed(Config.load(path), host, port, placement)
    if check:
        out.print(f"{path or 'embedded default'}: valid, {len(config.experts)} experts")
        return
    _set_switches(config)
    _check_port(config)
    _prepare(config, build_collections=not no_index)
    _run(config, address)


def _changed(config: Config, host: str | None, port: int | None, placement: str | None) -> Config:
    body = config.model_dump()
    body["server"]["host"] = host or body["server"]["host"]
    body["server"]["port"] = port or body["server"]["port"]
    body["placement"] = placement or body["placement"]
    return Config.check(body)


def _set_switches(config: Config) -> None:
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
    from orchestrator.replicas import open_gate
    from retrieval.errors import RetrievalError
    from router.gate import GateError

    store = ModelStore()
    with (
        readable_errors(ModelError, AdapterError, RetrievalError, GateError),
        progress_bar() as bar,
    ):
        for model in (*config.models.values(), config.encoder):
            store.pull(model.source, revision=model.revision, progress=bar)
        known = set(open_gate(config).labels)
        if build_collections and config.retrieval.enabled:
            fill_collections(config, bar)
    strangers = [n for n in config.experts if n not in known and n != config.generalist]
    if strangers:
        err.print(
            f"[yellow]the gate was not trained for {', '.join(strangers)}: they answer only when a "
            "request names them. `collegium train router` teaches it.[/]"
        )


def _run(config: Config, address: str | None) -> None:
    import ray
    from ray import serve as ray_serve
    from ray.serve.schema import ApplicationStatus, LoggingConfig

    from orchestrator.app import APPLICATION, graph

    server = config.server
    with err.status("starting Ray"):
        ray.init(address=address, **({} if address else _local_cluster()))
    ray_serve.start(
        http_options={
            "host": server.host,
            "port": server.port,
            "request_timeout_s": server.request_timeout_s,
        },
        logging_config=LoggingConfig(log_level="WARNING"),
    )
    # Ray sets handlers of its own; a shell's background job starts with SIGINT ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        target = ray_serve.RunTarget(graph(config), name=APPLICATION, route_prefix="/")
        ray_serve.run_many([target], wait_for_applications_running=False)
        _wait_ready(ApplicationStatus.RUNNING)
        _greet(config)
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        err.print("stopping")
    finally:
        if address is None:
            ray_serve.shutdown()
            ray.shutdown()
            err.print("stopped")


def _local_cluster() -> dict[str, Any]:
    return {
        "include_dashboard": False,
        "object_store_memory": 256 * 2**20,
        "log_to_driver": bool(os.environ.get("COLLEGIUM_LOG_TO_DRIVER")),
        "_node_ip_address": "127.0.0.1",
    }


def _wait_ready(running: object) -> None:
    from ray import serve as ray_serve

    from orchestrator.app import APPLICATION

    with progress_bar() as bar:
        deadline = time.monotonic() + _READY_SECONDS
        while time.monotonic() < deadline:
            application = ray_serve.status().applications[APPLICATION]
            states = application.deployments.values()
            healthy = sum(d.status in ("HEALTHY", "UPSCALING", "DOWNSCALING") for d in states)
            bar("start deployments", healthy, len(states))
            if application.status == running:
                return
            if application.status in ("DEPLOY_FAILED", "UNHEALTHY"):
                raise click.ClickException(f"the service did not start: {application.message}")
            time.sleep(0.5)
    raise click.ClickException(f"the service was not ready within {_READY_SECONDS} s")


def _greet(config: Config) -> None:
    url = f"http://{config.server.host}:{config.server.port}"
    out.print(f"\n[bold]Collegium is ready at {url}[/]  (Ctrl-C stops it)\n", highlight=False)
    out.print(
        f"curl {url}/v1/chat/completions -H 'content-type: application/json' \\\n"
        '  -d \'{"model": "auto", "messages": [{"role": "user", "content": '
        '"What does the Mozilla Public License say about source code?"}]}\'\n\n'
        f"collegium chat --url {url}\n",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
