"""The whole service in this process, without Ray: what `collegium eval` asks where none runs."""

from __future__ import annotations

from pathlib import Path

import httpx

from orchestrator.client import AsyncClient
from orchestrator.combination import Combiner
from orchestrator.config import Config
from orchestrator.gateway import Gateway
from orchestrator.pipeline import Pipeline
from orchestrator.placement import groups
from orchestrator.ports import ExpertPort
from orchestrator.replicas import ExpertReplica, RetrieverReplica, RouterReplica
from orchestrator.telemetry import Telemetry

_PATIENCE = 600.0
"""Seconds: a small machine may need minutes for an answer."""


def reading(config: Config, collections: Path) -> Config:
    """Return the configuration with its collections in another folder."""
    retrieval = config.retrieval.model_copy(update={"directory": str(collections)})
    return config.model_copy(update={"retrieval": retrieval})


def client_of(config: Config) -> AsyncClient:
    """Return a client that asks a service made here; it records nothing.

    Raises what the experts, the router and the collections raise when they are opened.
    """
    ports: dict[str, ExpertPort] = {}
    for names in groups(config):
        ports |= dict.fromkeys(names, ExpertReplica(config, names))
    telemetry = Telemetry(config.telemetry.service_name, "gateway", enabled=False)
    rooms = RouterReplica(config, notes=False), RetrieverReplica(config), Combiner(config, ports)
    app = Gateway(config, Pipeline(config, *rooms, telemetry), telemetry).app()
    return AsyncClient(timeout=_PATIENCE, transport=httpx.ASGITransport(app=app))
