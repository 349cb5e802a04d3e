"""A service without models: a toy gate, experts that echo, a log of decisions, real HTTP.

    python feedback_service.py FOLDER

serves it on a free port, prints the address, and runs until it is killed.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
import uvicorn
from fastapi import FastAPI, Request
from gate_folders import EXPERTS, registry_in
from test_router_routing import word_vectors

from experts.echo import EchoExpert
from orchestrator.combination import Combiner
from orchestrator.config import Config
from orchestrator.decision_log import log_file, read_log
from orchestrator.gateway import Gateway
from orchestrator.identity import EVERYONE, Principal
from orchestrator.metrics import Metrics
from orchestrator.pipeline import Pipeline
from orchestrator.ports import ExpertPort
from orchestrator.recorder import Recorder
from orchestrator.registry import open_policy
from orchestrator.telemetry import Carrier, Telemetry
from router.decision import Decision
from router.gate import Gate
from router.live import LiveRouter
from router.logged_decision import LoggedDecision
from router.overrides import Overrides
from router.router import Router
from router.situation import CALM, Situation

SECRET = "python zebra"


def configuration(folder: Path, **sections: Any) -> Config:  # noqa: ANN401
    """The toy gate's experts; nothing is retrieved, the log lies in the folder."""
    expert = {"model": "base", "adapter": "x"}
    body: dict[str, Any] = {
        "models": {"base": {"source": "unused"}},
        "encoder": {"source": "words"},
        "experts": {"general": {"model": "base"}} | dict.fromkeys(EXPERTS[1:], expert),
        "router": {"weights": str(folder / "origin"), "versions": str(folder / "registry")},
        "retrieval": {"enabled": False},
        "feedback": {"directory": str(folder / "feedback")},
    }
    for name, section in sections.items():
        body[name] = {**body.get(name, {}), **section}
    return Config.check(body)


class ToyRouter:
    """A Router deployment over the toy gate."""

    def __init__(self, config: Config) -> None:
        registry = registry_in(Path(str(config.router.versions)).parent)

        def build(gate: Gate) -> Router:
            policy = open_policy(config, gate)
            return Router(gate, word_vectors, EXPERTS, config.generalist, policy)

        self.live = LiveRouter(
            registry,
            build,
            exploration=config.router.explore,
            keep_features=config.feedback.enabled,
        )

    async def route(
        self,
        messages: Sequence[tuple[str, str]],
        overrides: Overrides,
        trace: Carrier,
        situation: Situation = CALM,
        key: str = "",
        keep: bool = True,
    ) -> Decision:
        route = partial(self.live.route, messages, overrides, situation, key, keep=keep)
        return await asyncio.to_thread(route)


class NoRetriever:
    """Nothing is indexed here."""

    async def search(self, *_asked: object) -> NoReturn:
        raise AssertionError("retrieval is switched off")

    async def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        return word_vectors(texts)

    async def embeddings(self, *_asked: object) -> NoReturn:
        raise AssertionError("nobody asked for embeddings")


class Keyed(Gateway):
    """The key is the tenant; `coders` may ask code and the generalist alone."""

    def _principal(self, http: Request) -> Principal:
        tenant = http.headers.get("authorization", "").removeprefix("Bearer ")
        if tenant == "coders":
            return Principal(tenant, frozenset({"code", "general"}))
        return Principal(tenant) if tenant else EVERYONE


@dataclass(frozen=True)
class Place:
    """A service and its log."""

    config: Config
    recorder: Recorder | None
    telemetry: Telemetry
    ports: dict[str, ExpertPort]

    @classmethod
    def open(cls, config: Config, metrics: Metrics, **ports: ExpertPort) -> Place:
        telemetry = Telemetry("collegium", "gateway")
        echoes: dict[str, ExpertPort] = {name: EchoExpert(name) for name in config.experts}
        return cls(config, Recorder.of(config, metrics), telemetry, echoes | ports)

    def app(self, metrics: Metrics) -> FastAPI:
        pipeline = Pipeline(
            self.config,
            ToyRouter(self.config),
            NoRetriever(),
            Combiner(self.config, self.ports),
            self.telemetry,
            self.recorder,
        )
        return Keyed(self.config, pipeline, self.telemetry, metrics, self.recorder).app()

    def log(self) -> list[LoggedDecision]:
        """All that is kept, once what waits is written."""
        if self.recorder is not None:
            self.recorder.close()
        return list(read_log(log_file(self.config.feedback)))


def main(folder: Path) -> None:
    metrics = Metrics()
    app = Place.open(configuration(folder), metrics).app(metrics)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        # Whoever reads the address may call at once.
        listener.listen(128)
        sys.stdout.write(f"http://127.0.0.1:{listener.getsockname()[1]}\n")
        sys.stdout.flush()
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
        asyncio.run(server.serve(sockets=[listener]))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
