"""A small real service that goes wrong on request, and a twin of the client to meet it with."""

import base64
import inspect
import struct
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import anyio
from anyio.from_thread import BlockingPortal
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from orchestrator import AsyncClient, AsyncStream, Client
from orchestrator.client_collections import AsyncCollections
from orchestrator.wire import (
    Annotation,
    ChatCompletion,
    ChatCompletionChunk,
    ChatRequest,
    Choice,
    ChunkChoice,
    Delta,
    EmbeddingsRequest,
    ResponseMessage,
    RoutedExpert,
    RoutingReport,
    UrlCitation,
    Usage,
)

Connect = Callable[..., Client]

WORDS = ["Ja", ", das ", "dürfen ", "Sie. ", "[1]"]
NOTE = Annotation(
    url_citation=UrlCitation(
        start_index=21,
        end_index=24,
        title="MIT License",
        url="https://spdx.org/licenses/MIT.html",
        collection="licences",
        passage_id="mit-3",
        start=0,
        end=80,
        score=0.9,
    )
)
REPORT = RoutingReport(
    decision_id="d1",
    router_version="abc",
    mode="single",
    reason="sure",
    fallback=False,
    experts=[RoutedExpert(name="legal", weight=1, probability=0.9)],
    candidates=[
        RoutedExpert(name="legal", weight=1, probability=0.9),
        RoutedExpert(name="general", weight=0, probability=0.1),
    ],
    k=1,
)
USAGE = Usage(prompt_tokens=3, completion_tokens=5, total_tokens=8)
FRAME: dict[str, Any] = {"id": "chatcmpl-1", "created": 1_700_000_000, "model": "legal"}


@dataclass
class Service:
    """A small service: the `model` of a request says how it shall go wrong."""

    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    gone: threading.Event = field(default_factory=threading.Event)

    def forget(self) -> None:
        """Be as new, for the next test."""
        self.bodies.clear()
        self.headers.clear()
        # A new one, because requests of the last test may still be on their way out.
        self.gone = threading.Event()

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/v1/chat/completions", self.chat, methods=["POST"]),
                Route("/v1/route", self.route, methods=["POST"]),
                Route("/v1/models", self.models),
                Route("/v1/embeddings", self.embeddings, methods=["POST"]),
            ]
        )

    async def noted(self, request: Request) -> dict[str, Any]:
        body: dict[str, Any] = await request.json()
        self.bodies.append(body)
        self.headers.append(dict(request.headers))
        return body

    async def chat(self, request: Request) -> Response:
        gone = self.gone
        asked = ChatRequest.model_validate(await self.noted(request))
        if asked.model in REFUSALS and len(self.bodies) <= REFUSALS[asked.model].times:
            return REFUSALS[asked.model].response()
        if asked.model == "slow":
            await anyio.sleep(2)
        if asked.model == "babble":
            return JSONResponse({"hello": "world"})
        if asked.stream:
            return StreamingResponse(self.events(asked.model, gone), media_type="text/event-stream")
        message = ResponseMessage(content="".join(WORDS), annotations=[NOTE])
        choice = Choice(message=message, finish_reason="stop")
        whole = ChatCompletion(**FRAME, choices=[choice], usage=USAGE, x_routing=REPORT)
        return Response(whole.model_dump_json(), media_type="application/json")

    async def events(self, model: str, gone: threading.Event) -> AsyncIterator[str]:
        try:
            yield event(ChunkChoice(delta=Delta(role="assistant")))
            for word in WORDS:
                yield event(ChunkChoice(delta=Delta(content=word)))
            if model in ENDINGS:
                yield ENDINGS[model]
                return
            while model == "endless":
                yield event(ChunkChoice(delta=Delta(content="more ")))
                await anyio.sleep(0.01)
            last = ChunkChoice(delta=Delta(annotations=[NOTE]), finish_reason="stop")
            yield event(last, x_routing=REPORT)
            yield event(usage=USAGE)
            yield "data: [DONE]\n\n"
        finally:
            gone.set()

    async def route(self, request: Request) -> Response:
        ChatRequest.model_validate(await self.noted(request))
        return Response(REPORT.model_dump_json(), media_type="application/json")

    async def models(self, request: Request) -> Response:
        cards = [{"id": "auto", "object": "model"}, {"id": "legal", "object": "model", "new": 1}]
        return JSONResponse({"object": "list", "data": cards})

    async def embeddings(self, request: Request) -> Response:
        asked = EmbeddingsRequest.model_validate(await self.noted(request))
        rows = [
            {"object": "embedding", "index": i, "embedding": vector(text, asked.model)}
            for i, text in enumerate(asked.texts)
        ]
        usage = {"prompt_tokens": 1, "total_tokens": 1}
        return JSONResponse(
            {"object": "list", "data": rows[::-1], "model": asked.model, "usage": usage}
        )


@dataclass
class Refusal:
    """What a model answers to its first `times` requests."""

    status: int
    times: int
    message: str = "Not now"
    headers: dict[str, str] = field(default_factory=dict)
    code: str | None = None

    def response(self) -> Response:
        detail = {"message": self.message, "code": self.code, "param": "model", "type": None}
        return JSONResponse({"error": detail}, self.status, self.headers)


REFUSALS = {
    "busy": Refusal(429, 2, headers={"Retry-After": "0"}),
    "down": Refusal(503, 99, headers={"Retry-After": "0"}),
    "later": Refusal(429, 1, headers={"Retry-After": "1"}),
    "tomorrow": Refusal(429, 99, headers={"Retry-After": "86400"}),
    "faulty": Refusal(500, 99),
    "lgal": Refusal(404, 99, "No model `lgal`", code="model_not_found"),
    "long": Refusal(400, 99, "Too long", code="context_length_exceeded"),
}
ENDINGS = {
    "fails": 'data: {"error": {"message": "Gone", "code": "expert_unavailable"}}\n\n',
    "cut": "",
    "garbles": "data: {nonsense\n\n",
}


def event(
    choice: ChunkChoice | None = None,
    usage: Usage | None = None,
    x_routing: RoutingReport | None = None,
) -> str:
    choices = [choice] if choice else []
    chunk = ChatCompletionChunk(**FRAME, choices=choices, usage=usage, x_routing=x_routing)
    return f"data: {chunk.model_dump_json()}\n\n"


def vector(text: str, model: str) -> list[float] | str:
    if model == "plain":
        return [float(len(text)), -1.5]
    if model == "broken":
        return "AAAA"
    return base64.b64encode(struct.pack("<2f", len(text), -1.5)).decode()


class FromAsync:
    """`AsyncClient` and its streams, driven from a thread, so that one test serves both twins."""

    def __init__(
        self, portal: BlockingPortal, twin: AsyncClient | AsyncStream | AsyncCollections
    ) -> None:
        self._portal = portal
        self._twin = twin

    def __getattr__(self, name: str) -> object:
        value = getattr(self._twin, "aclose" if name == "close" else name)
        if isinstance(value, AsyncCollections):
            return FromAsync(self._portal, value)
        return self._awaited(value) if callable(value) else value

    def __repr__(self) -> str:
        return repr(self._twin).removeprefix("Async")

    def _awaited(self, method: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **kwargs: object) -> object:
            async def run() -> object:
                result = method(*args, **kwargs)
                return await result if inspect.isawaitable(result) else result

            result = self._portal.call(run)
            return FromAsync(self._portal, result) if isinstance(result, AsyncStream) else result

        return call

    def __iter__(self) -> Iterator[object]:
        while (item := self._awaited(anext)(self._twin, None)) is not None:
            yield item

    def __enter__(self) -> "FromAsync":
        self._awaited(self._twin.__aenter__)()
        return self

    def __exit__(self, *exc: object) -> None:
        self._awaited(self._twin.__aexit__)(*exc)
