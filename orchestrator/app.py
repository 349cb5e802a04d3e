"""The Serve graph: `build(config)` wires the replicas' plain classes into Ray Serve deployments.

The only module that knows Ray. Everything that crosses a handle is a frozen value; errors of ours
come back as themselves.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

from fastapi import FastAPI
from ray import serve
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.serve.config import AutoscalingConfig
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle
from ray.serve.schema import ApplicationStatus
from ray.util.metrics import Gauge

from experts.generation import Busy, Chunk, ExpertError, Generation, Health, Score, Scoring
from orchestrator.answer_cache import AnswerCache
from orchestrator.combination import Combiner
from orchestrator.config import Config
from orchestrator.deployment import DeploymentConfig
from orchestrator.errands import Errand, Found
from orchestrator.gateway import Gateway
from orchestrator.metrics import Metrics
from orchestrator.pipeline import Pipeline
from orchestrator.placement import deployment_name, groups
from orchestrator.recorder import Recorder
from orchestrator.replicas import ExpertReplica, RetrieverReplica, RouterReplica, Vectors
from orchestrator.telemetry import Carrier, Telemetry, otel_environment
from retrieval.embeddings import Embeddings
from retrieval.filters import EVERYTHING, Condition
from retrieval.finding import Finding
from router.decision import Decision
from router.overrides import Overrides
from router.situation import CALM, Situation

APPLICATION = "collegium"
_PATIENCE = 1.0
"""Seconds of silence before a stream asks whether its deployment still has a replica."""


def build(args: Mapping[str, Any] | None = None) -> serve.Application:
    """The application from `{"config": {...}}`, the body of a configuration file.

    Without arguments it is the embedded default. This is the import path for `serve deploy` and for
    KubeRay: `orchestrator.app:build`.
    """
    body = (args or {}).get("config")
    return graph((Config.check(body) if body else Config.load()).deployed())


def graph(config: Config) -> serve.Application:
    """All deployments of a configuration, the gateway as ingress."""
    router = _deploy(MeteredRouter, "Router", config.router.deployment).bind(config)
    retriever = _deploy(RetrieverReplica, "Retriever", config.retrieval.deployment).bind(config)
    experts = _experts(config)
    gateway = serve.ingress()(GatewayReplica)
    deployment = _deploy(gateway, "Gateway", config.server.deployment)
    return deployment.bind(config, router, retriever, experts)


def _experts(config: Config) -> dict[str, Any]:
    bound: dict[str, Any] = {}
    for names in groups(config):
        name = deployment_name(names, config)
        deployment = _deploy(MeteredExpert, name, config.deployment(names))
        bound |= dict.fromkeys(names, deployment.bind(config, list(names)))
    return bound


def _deploy(target: Any, name: str, settings: DeploymentConfig) -> Any:  # noqa: ANN401
    scaling = settings.autoscaling
    environment = {"runtime_env": {"env_vars": otel_environment()}}
    return serve.deployment(
        target,
        name=name,
        ray_actor_options={**settings.resources.reserved(), **environment},
        max_ongoing_requests=settings.max_ongoing_requests,
        max_queued_requests=settings.max_queued_requests,
        # Short periods: a killed replica must be noticed before its callers lose patience.
        health_check_period_s=1,
        health_check_timeout_s=30,
        graceful_shutdown_timeout_s=10,
        graceful_shutdown_wait_loop_s=0.5,
        autoscaling_config=AutoscalingConfig(
            **scaling.model_dump(),
            initial_replicas=scaling.min_replicas,
            # Load is pushed every ten seconds unless the environment says otherwise.
            look_back_period_s=12.0,
        ),
    )


class MeteredExpert(ExpertReplica):
    """An expert whose engine's numbers go to Ray's own metrics, as `ray_collegium_engine_…`."""

    def __init__(self, config: Config, names: Sequence[str]) -> None:
        super().__init__(config, names)
        self._tags = {"deployment": deployment_name(names, config)}
        self._gauges = {
            name: Gauge(f"collegium_engine_{name}", "Of one expert engine.", ("deployment",))
            for name in self.stats()
        }

    def check_health(self) -> None:
        """Called by Serve every second; raising replaces the replica."""
        super().check_health()
        for name, value in self.stats().items():
            self._gauges[name].set(value, self._tags)


class MeteredRouter(RouterReplica):
    """A router whose counters go to Ray's own metrics, as `ray_collegium_router_…`."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._gauges: dict[str, Gauge] = {}

    def check_health(self) -> None:
        """Called by Serve every second."""
        for count in self.counts():
            if count.name not in self._gauges:
                words = "Of one router, by version and role."
                name = f"collegium_router_{count.name}"
                self._gauges[count.name] = Gauge(name, words, tuple(count.tags))
            self._gauges[count.name].set(count.value, dict(count.tags))


class GatewayReplica:
    """The ingress: a gateway over handles."""

    def __init__(
        self,
        config: Config,
        router: DeploymentHandle,
        retriever: DeploymentHandle,
        experts: Mapping[str, DeploymentHandle],
    ) -> None:
        traces = config.telemetry
        telemetry = Telemetry(traces.service_name, "gateway", enabled=traces.traces)
        least = {
            names: config.deployment(names).autoscaling.min_replicas for names in groups(config)
        }
        ports = {
            name: ExpertHandle(experts[name], deployment_name(names, config), least[names])
            for names in groups(config)
            for name in names
        }
        metrics, asked = Metrics(), RetrieverHandle(retriever)
        recorder = Recorder.of(config, metrics)
        own = Combiner(config, ports), telemetry, recorder, AnswerCache.of(config, asked, metrics)
        pipeline = Pipeline(config, RouterHandle(router), asked, *own)
        self._gateway = Gateway(config, pipeline, telemetry, metrics, recorder)

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Called by Serve after construction."""
        return self._gateway.app()


@dataclass(frozen=True)
class RouterHandle:
    """The Router deployment across Ray."""

    handle: DeploymentHandle

    async def route(
        self,
        messages: Sequence[tuple[str, str]],
        overrides: Overrides,
        trace: Carrier,
        situation: Situation = CALM,
        key: str = "",
        keep: bool = True,
    ) -> Decision:
        """See `RouterPort`."""
        with _own_errors():
            asked = self.handle.route.remote(messages, overrides, trace, situation, key, keep)
            return cast(Decision, await asked)


@dataclass(frozen=True)
class RetrieverHandle:
    """The Retriever deployment across Ray."""

    handle: DeploymentHandle

    async def search(
        self,
        text: str,
        vector: Vectors | None,
        collections: Sequence[str],
        top_k: int,
        trace: Carrier,
        condition: Condition = EVERYTHING,
    ) -> list[Finding]:
        """See `RetrieverPort`."""
        asked = (text, vector, collections, top_k, trace, condition)
        with _own_errors():
            return cast(list[Finding], await self.handle.search.remote(*asked))

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """See `RetrieverPort`."""
        with _own_errors():
            return cast(Vectors, await self.handle.embed.remote(list(texts)))

    async def embeddings(self, texts: Sequence[str], trace: Carrier) -> Embeddings:
        """See `RetrieverPort`."""
        with _own_errors():
            return cast(Embeddings, await self.handle.embeddings.remote(list(texts), trace))

    async def tend(self, errand: Errand[Found], trace: Carrier) -> Found:
        """See `RetrieverPort`."""
        with _own_errors():
            return cast(Found, await self.handle.tend.remote(errand, trace))


class ExpertHandle:
    """One expert's deployment across Ray.

    A request to a deployment whose replicas are all dead would wait for the restart; here it fails
    within seconds, so that the generalist can stand in. A deployment that may scale to zero is
    waited for.
    """

    def __init__(self, handle: DeploymentHandle, name: str, min_replicas: int) -> None:
        self._handle, self._name, self._min_replicas = handle, name, min_replicas
        self._streams = handle.options(stream=True)
        self._asked, self._dead = 0.0, False

    async def generate(self, request: Generation) -> AsyncGenerator[Chunk, None]:
        """See `ExpertPort`."""
        with _own_errors():
            stream = self._streams.generate.remote(request)
            try:
                first = await self._first(stream)
                while first is not None:
                    yield first
                    first = await anext(stream, None)
            finally:
                stream.cancel()

    async def score(self, request: Scoring) -> Score:
        """See `ExpertPort`."""
        with _own_errors():
            return cast(Score, await self._handle.score.remote(request))

    async def health(self) -> Health:
        """See `ExpertPort`."""
        with _own_errors():
            return cast(Health, await self._handle.health.remote())

    async def _first(self, stream: Any) -> Chunk | None:  # noqa: ANN401
        waiting = asyncio.ensure_future(anext(stream, None))
        try:
            while not waiting.done():
                await asyncio.wait([waiting], timeout=_PATIENCE)
                if not waiting.done() and self._min_replicas > 0:
                    await self._check_alive()
            chunk: Chunk | None = waiting.result()
            return chunk
        finally:
            waiting.cancel()

    async def _check_alive(self) -> None:
        # All waiting streams share one question a second to the controller.
        if time.monotonic() - self._asked >= _PATIENCE:
            self._asked = time.monotonic()
            self._dead = await asyncio.to_thread(self._is_dead)
        if self._dead:
            raise ExpertError(f"{self._name} has no running replica, it is being restarted")

    def _is_dead(self) -> bool:
        application = serve.status().applications.get(APPLICATION)
        found = application.deployments.get(self._name) if application else None
        starting = application is not None and application.status == ApplicationStatus.DEPLOYING
        return found is not None and not found.replica_states.get("RUNNING") and not starting


@contextmanager
def _own_errors() -> Iterator[None]:
    """Turn Ray's errors into ours; what our own code raised in a replica comes out as it was."""
    try:
        yield
    except RayTaskError as error:
        cause = error.cause if isinstance(error.cause, Exception) else None
        raise cause or ExpertError(str(error)) from error
    except BackPressureError as error:
        raise Busy("the expert's queue is full") from error
    except (RayActorError, DeploymentUnavailableError) as error:
        raise ExpertError(f"its replica died or is not available: {error}") from error
    except RayError as error:
        raise ExpertError(str(error)) from error
