"""The HTTP face: OpenAI's endpoints, errors in OpenAI's shape, streams as server-sent events."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import Annotated, Any

from fastapi import FastAPI, Header, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from opentelemetry.trace import Span

from orchestrator.admission import Admission
from orchestrator.answer_event import Delta, Finish
from orchestrator.cache_desk import CacheDesk
from orchestrator.cache_use import CACHE_HEADER, cache_use
from orchestrator.collections_desk import CollectionsDesk
from orchestrator.completion import Completion, sent
from orchestrator.config import Config
from orchestrator.deadline import bounded
from orchestrator.doorway import Doorway
from orchestrator.embedding import embeddings_response
from orchestrator.errors import CollegiumError, InternalError, InvalidRequest, NotFound, to_body
from orchestrator.feedback import FeedbackDesk
from orchestrator.identity import EVERYONE, READERS, Principal
from orchestrator.metrics import Metrics
from orchestrator.pipeline import Pipeline
from orchestrator.presence import while_present
from orchestrator.recorder import Recorder
from orchestrator.refusal import install
from orchestrator.request import AUTO, ChatRequest, EmbeddingsRequest, FeedbackRequest
from orchestrator.tally import Tally, leave_to_admission
from orchestrator.task import Task, accept, model_names
from orchestrator.telemetry import Attribute, Carrier, Telemetry, carrier, failing, incoming
from orchestrator.wire import (
    ChatCompletion,
    EmbeddingsResponse,
    ErrorBody,
    Feedback,
    ModelCard,
    ModelList,
    RoutingReport,
)

logger = logging.getLogger(__name__)

_DONE = b"data: [DONE]\n\n"
_SessionHeader = Annotated[str | None, Header(description="As `routing.session`.")]
_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody} for status in (400, 403, 404, 413, 415, 422, 429, 500, 503, 504)
}


class Gateway:
    """The endpoints over a pipeline; `app()` is the ASGI application."""

    def __init__(
        self,
        config: Config,
        pipeline: Pipeline,
        telemetry: Telemetry,
        metrics: Metrics | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        self._config, self._pipeline, self._telemetry = config, pipeline, telemetry
        self._metrics = metrics or Metrics()
        self._desk = FeedbackDesk(config, recorder, self._metrics)
        self._admission = Admission(config.limits.max_open_requests, self._metrics)

    def app(self) -> FastAPI:
        """Build the application."""
        app = FastAPI(
            title="Collegium",
            description="One OpenAI-compatible endpoint in front of many domain experts.",
            version="1",
            responses=_ERRORS,
        )
        app.add_api_route(
            "/v1/chat/completions", self.chat, methods=["POST"], response_model=ChatCompletion
        )
        app.add_api_route("/v1/route", self.route, methods=["POST"], response_model=RoutingReport)
        app.add_api_route(
            "/v1/embeddings", self.embeddings, methods=["POST"], response_model=EmbeddingsResponse
        )
        app.add_api_route("/v1/feedback", self.feedback, methods=["POST"], response_model=Feedback)
        app.add_api_route("/v1/models", self.models, methods=["GET"], response_model=ModelList)
        app.add_api_route(
            "/v1/models/{name}", self.model, methods=["GET"], response_model=ModelCard
        )
        app.add_api_route("/healthz", self.healthz, response_model=None)
        app.add_api_route("/readyz", self.readyz, response_model=None)
        app.add_api_route("/metrics", self.metrics, response_model=None)
        desk = CollectionsDesk(
            self._config.limits, self._pipeline.retriever, self._principal, self._request
        )
        desk.install(app)
        CacheDesk(self._pipeline.cache, self._principal).install(app)
        install(app)
        hosts = self._config.server.hosts
        app.add_middleware(Doorway, limits=self._config.limits, hosts=hosts)
        app.add_middleware(Tally, metrics=self._metrics, routes=app.routes)
        return app

    async def chat(
        self, body: ChatRequest, http: Request, x_session_id: _SessionHeader = None
    ) -> Response:
        """Answer a conversation. `model`: `auto`, an expert's name, or several joined by `+`."""
        task = self._accepted(body, http, x_session_id)
        trace = incoming(http.headers)
        if body.stream:
            usage = bool(body.stream_options and body.stream_options.include_usage)
            events = self._events(task, trace)
            # The first event decides between an HTTP error and a stream.
            first = await while_present(http, anext(events))
            stream = self._sse(Completion(task.id, body.model), first, events, usage)
            headers = {"cache-control": "no-cache", **_told(first.cache)}
            response: Response = StreamingResponse(
                stream, media_type="text/event-stream", headers=headers
            )
        else:
            completion = await while_present(http, self._whole(task, trace, body))
            found = completion.x_routing and completion.x_routing.cache
            told = _told(found.kind if found else None)
            response = JSONResponse(completion.model_dump(mode="json"), headers=told)
        return response

    async def route(
        self, body: ChatRequest, http: Request, x_session_id: _SessionHeader = None
    ) -> RoutingReport:
        """The routing decision for a conversation, without an answer."""
        task = self._accepted(body, http, x_session_id)
        async with self._request("/v1/route", incoming(http.headers), **_asked(task)) as span:
            return await self._pipeline.route(task, carrier(span))

    async def embeddings(self, body: EmbeddingsRequest, http: Request) -> EmbeddingsResponse:
        """Sentence vectors of unit length; `usage` counts the tokens that the encoder read."""
        name = self._encoder(body)
        leave_to_admission(http.scope)
        asked: dict[str, Attribute] = {
            "gen_ai__operation__name": "embeddings",
            "gen_ai__request__model": body.model,
            "gen_ai__request__encoding_formats": [body.encoding_format or "float"],
            "collegium__tenant": self._principal(http).tenant,
        }
        async with self._request("/v1/embeddings", incoming(http.headers), **asked) as span:
            found = await self._pipeline.embeddings(body.texts, carrier(span))
            dimensions = found.vectors.shape[1]
            span.set_attribute("gen_ai.usage.input_tokens", found.tokens)
            span.set_attribute("gen_ai.embeddings.dimension.count", dimensions)
            if body.dimensions not in (None, dimensions):
                raise InvalidRequest(
                    f"`dimensions` is {body.dimensions}; {name!r} gives {dimensions}.",
                    param="dimensions",
                )
        return embeddings_response(found, name, packed=body.encoding_format == "base64")

    async def feedback(self, body: FeedbackRequest, http: Request) -> Feedback:
        """Keep what the caller says about a decision, in place of what was said before."""
        principal = self._principal(http)
        leave_to_admission(http.scope)
        asked: dict[str, Attribute] = {
            "collegium__tenant": principal.tenant,
            "collegium__decision_id": body.decision_id,
        }
        async with self._request("/v1/feedback", incoming(http.headers), **asked) as span:
            found = await self._desk.take(body, principal)
            said = {"score": found.score, "expert": found.expert}
            given = {f"collegium.feedback.{k}": v for k, v in said.items() if v is not None}
            span.set_attributes({**given, "collegium.feedback.replaced": found.replaced})
        return found

    async def models(self, http: Request) -> ModelList:
        """Names that may stand in `model`."""
        names = model_names(self._config, self._principal(http))
        return ModelList(data=[self._card(name) for name in names])

    async def model(self, name: str, http: Request) -> ModelCard:
        """One of them."""
        if name not in model_names(self._config, self._principal(http)):
            raise NotFound(f"The model {name!r} does not exist.", param="model")
        return self._card(name)

    async def healthz(self) -> JSONResponse:
        """The gateway's event loop turns."""
        return JSONResponse({"status": "ok"})

    async def readyz(self) -> JSONResponse:
        """Router, retriever and generalist answer."""
        faults = await self._pipeline.faults()
        body = {"status": "ready" if not faults else "not ready", "faults": faults}
        return JSONResponse(body, status_code=503 if faults else 200)

    async def metrics(self) -> Response:
        """Prometheus text of this gateway replica."""
        return Response(self._metrics.text(), media_type="text/plain; version=0.0.4")

    def _accepted(self, body: ChatRequest, http: Request, session: str | None) -> Task:
        task = accept(body, self._principal(http), self._config, session)
        leave_to_admission(http.scope)
        return replace(
            task, cache=cache_use(task.cache, ",".join(http.headers.getlist("cache-control")))
        )

    def _encoder(self, body: EmbeddingsRequest) -> str:
        """The encoder's name, if it can serve the request."""
        name, most = self._config.encoder.source, self._config.limits.max_embedding_inputs
        if body.model not in (AUTO, name):
            raise NotFound(
                f"`model` is {body.model!r}; embeddings come from {name!r}.", param="model"
            )
        if len(body.texts) > most:
            raise InvalidRequest(
                f"`input` has {len(body.texts)} texts, at most {most} are allowed.", param="input"
            )
        return name

    def _principal(self, _http: Request) -> Principal:
        return EVERYONE if self._config.server.lets_everyone_write else READERS

    def _card(self, name: str) -> ModelCard:
        expert = self._config.experts.get(name)
        text = expert.description if expert else "Routes each request to the experts that matter."
        return ModelCard(id=name, description=text or None)

    async def _whole(self, task: Task, trace: Carrier, body: ChatRequest) -> ChatCompletion:
        pieces: list[Delta] = []
        finish: Finish | None = None
        async with aclosing(self._events(task, trace)) as events:
            async for event in events:
                if isinstance(event, Finish):
                    finish = event
                else:
                    pieces.append(event)
        if finish is None:
            raise InternalError("The answer has no end.")
        return Completion(task.id, body.model).whole(pieces, finish, logprobs=bool(body.logprobs))

    async def _events(self, task: Task, trace: Carrier) -> AsyncGenerator[Delta | Finish, None]:
        """The pipeline's events under a root span, counted."""
        async with self._request("/v1/chat/completions", trace, **_asked(task)) as span:
            begun, answer = False, self._pipeline.answer(task, carrier(span))
            async with aclosing(bounded(task, answer)) as events:
                async for event in events:
                    if isinstance(event, Finish):
                        self._admission.count(event.routing, event.usage, len(event.citations))
                    elif not begun:
                        begun = True
                        self._admission.first_token(task.started)
                    yield event

    @asynccontextmanager
    async def _request(
        self, path: str, trace: Carrier, **attributes: Attribute
    ) -> AsyncIterator[Span]:
        span = self._telemetry.start(f"POST {path}", trace, **attributes)
        try:
            with failing(span), self._admission.enter(path):
                yield span
        finally:
            span.end()

    async def _sse(
        self,
        completion: Completion,
        first: Delta | Finish,
        events: AsyncGenerator[Delta | Finish, None],
        usage: bool,
    ) -> AsyncGenerator[bytes, None]:
        yield sent(completion.first())
        try:
            async with aclosing(events):
                yield completion.sent(first, usage=usage)
                async for event in events:
                    yield completion.sent(event, usage=usage)
        except CollegiumError as error:
            yield sent(to_body(error))
        except Exception:
            # The status line is out: the error can only be told inside the stream.
            logger.exception("a stream failed")
            yield sent(to_body(InternalError("The service failed while it was answering.")))
        yield _DONE


def _asked(task: Task) -> dict[str, Attribute]:
    return {
        "gen_ai__operation__name": "chat",
        "gen_ai__request__model": task.model,
        "collegium__tenant": task.principal.tenant,
        "collegium__request_id": task.id,
    }


def _told(cache: str | None) -> dict[str, str]:
    return {} if cache is None else {CACHE_HEADER: cache}
