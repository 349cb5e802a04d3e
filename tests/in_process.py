"""The whole service in one process: real router and retriever, weightless experts, real HTTP."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from experts.echo import EchoExpert
from experts.generation import Chunk, ExpertError, Generation, Health, Score, Scoring
from orchestrator.answer_cache import AnswerCache
from orchestrator.answer_event import Delta, Finish
from orchestrator.combination import Combiner
from orchestrator.config import Config
from orchestrator.gateway import Gateway
from orchestrator.identity import EVERYONE, Principal
from orchestrator.metrics import Metrics
from orchestrator.pipeline import Pipeline
from orchestrator.ports import ExpertPort
from orchestrator.recorder import Recorder
from orchestrator.replicas import RetrieverReplica, RouterReplica
from orchestrator.request import ChatRequest
from orchestrator.task import Task, accept
from orchestrator.telemetry import Telemetry
from retrieval.document import Document
from retrieval.index import Index

REVERSED = "The Python function reversed returns a reverse iterator over a sequence. Is it so?"
PATENT = "Every contributor of the work grants a patent right to every user of it. Is it so?"

SNIPPETS = [
    Document(
        "reversed",
        "reversed()",
        "The Python function reversed returns a reverse iterator over a sequence. "
        "The sequence must support the length protocol.",
        "https://docs.python.org/3/library/functions.html#reversed",
    ),
    Document(
        "sorted",
        "sorted()",
        "The Python function sorted returns a new sorted list from the items of an iterable.",
        "https://docs.python.org/3/library/functions.html#sorted",
    ),
]
STATUTES = [
    Document(
        "patents",
        "Patent clause",
        "Every contributor of the work grants a patent right to every user of the work. "
        "The licence ends when the user files a patent claim.",
        "https://example.org/patents",
    )
]
SECRETS = [
    Document("merger", "Merger", "The secret merger of the two firms is planned for the winter.")
]


@dataclass
class Endless:
    """An expert that never stops, and notes when its stream was closed."""

    closed: threading.Event = field(default_factory=threading.Event)
    begun: threading.Event = field(default_factory=threading.Event)
    silent: bool = False

    async def generate(self, _request: Generation) -> AsyncGenerator[Chunk, None]:
        self.begun.set()
        try:
            while True:
                if not self.silent:
                    yield Chunk("more ")
                await asyncio.sleep(0.01)
        finally:
            self.closed.set()

    async def score(self, request: Scoring) -> Score:
        return Score(-1.0, 1, len(request.text))

    async def health(self) -> Health:
        return Health(("endless",), "none", 0, 0, os.getpid())


class Torn(EchoExpert):
    """An expert that dies after its first word."""

    async def generate(self, request: Generation) -> AsyncGenerator[Chunk, None]:
        self.requests.append(request)
        yield Chunk("once")
        raise ExpertError(f"{self.name}: its replica died")


def configuration(encoder: Path, collections: Path, **sections: Any) -> Config:  # noqa: ANN401
    """Four experts of one base as in the embedded default, and some of other bases that fail."""
    remote = {"remote": {"base_url": "http://127.0.0.1:9/v1", "model": "none"}}
    body: dict[str, Any] = {
        "models": {"base": {"source": "unused"}},
        "encoder": {"source": str(encoder)},
        "experts": {
            "general": {"model": "base", "description": "Everything else."},
            "code": {"model": "base", "adapter": "x", "collections": ["snippets"]},
            "legal": {"model": "base", "adapter": "x", "collections": ["statutes", "never-filled"]},
            "multilingual": {"model": "base", "adapter": "x"},
            "broken": {"model": "base", "adapter": "x"},
            "torn": {"model": "base", "adapter": "x"},
            "endless": {"model": "base", "adapter": "x"},
            "silent": {"model": "base", "adapter": "x"},
            "mirror": remote,
        },
        "retrieval": {"directory": str(collections)},
        # Not the versions and the log of whoever runs the tests.
        "router": {"versions": str(collections.parent / "versions")},
        "feedback": {"directory": str(collections.parent / "feedback")},
    }
    return Config.check(body | sections)


def weightless(config: Config) -> dict[str, ExpertPort]:
    """An echo for every expert, but for those whose names promise something else."""
    ports: dict[str, ExpertPort] = {name: EchoExpert(name) for name in config.experts}
    return ports | {
        "broken": EchoExpert("broken", fails=True),
        "torn": Torn("torn"),
        "endless": Endless(),
        "silent": Endless(silent=True),
    }


@dataclass(frozen=True)
class Service:
    """The parts of one service. `url` is empty where it is not served."""

    config: Config
    router: RouterReplica
    retriever: RetrieverReplica
    ports: Mapping[str, ExpertPort]
    telemetry: Telemetry
    url: str = ""

    @classmethod
    def open(cls, config: Config) -> Service:
        telemetry = Telemetry(config.telemetry.service_name, "gateway")
        router, retriever = RouterReplica(config), RetrieverReplica(config)
        return cls(config, router, retriever, weightless(config), telemetry)

    def pipeline(self, recorder: Recorder | None = None, **ports: ExpertPort) -> Pipeline:
        """A pipeline over this service's parts, some experts exchanged."""
        combiner = Combiner(self.config, {**self.ports, **ports})
        handles = self.router, self.retriever
        return Pipeline(self.config, *handles, combiner, self.telemetry, recorder)

    def app(self, **ports: ExpertPort) -> ASGIApp:
        metrics = Metrics()
        recorder = Recorder.of(self.config, metrics)
        pipeline = self.pipeline(recorder, **ports)
        pipeline.cache = AnswerCache.of(self.config, self.retriever, metrics)
        return Gateway(self.config, pipeline, self.telemetry, metrics, recorder).app()

    def task(self, prompt: str, principal: Principal = EVERYONE, **body: Any) -> Task:  # noqa: ANN401
        """An accepted task of one user message."""
        fields = {"messages": [{"role": "user", "content": prompt}], **body}
        return accept(ChatRequest.model_validate(fields), principal, self.config)

    def echo(self, name: str) -> EchoExpert:
        """One of the echoes."""
        port = self.ports[name]
        if not isinstance(port, EchoExpert):
            raise TypeError(f"{name} does not echo")
        return port

    def served_at(self, url: str) -> Service:
        return replace(self, url=url)


async def gathered(pipeline: Pipeline, task: Task) -> tuple[str, Finish]:
    """The whole text of an answer, and its end."""
    events = [event async for event in pipeline.answer(task, ())]
    finish = events[-1]
    if not isinstance(finish, Finish):
        raise TypeError("an answer ends with a finish")
    return "".join(event.text for event in events[:-1] if isinstance(event, Delta)), finish


def fill(service: Service) -> None:
    """Put the documents above where the service looks for them."""
    directory = Path(str(service.config.retrieval.directory))
    index = Index(directory, lambda texts: asyncio.run(service.retriever.embed(texts)))
    for name, documents in (("snippets", SNIPPETS), ("statutes", STATUTES), ("secrets", SECRETS)):
        index.add(name, documents)
    index.close()


@contextmanager
def serving(app: ASGIApp) -> Iterator[str]:
    """The address of an application that runs in a thread of its own."""
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.005)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        server.force_exit = True
        thread.join()
