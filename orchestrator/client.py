"""The SDK: one `Client` for threads and its twin `AsyncClient` for asyncio.

    with Client() as client:
        answer = client.chat("May I sublicense code that is under the MIT licence?")
        print(answer.text, answer.routing, answer.citations)

The twins only send; what they have in common is in `orchestrator.calls`.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Self, Unpack

import httpx

from orchestrator.answer import Answer
from orchestrator.calls import (
    CLEAR_CACHE,
    Call,
    Caller,
    Messages,
    Routing,
    Sampling,
    chat_call,
    embeddings_call,
    feedback_call,
    parsed,
    pause,
    route_call,
    stream_call,
    succeeded,
    vectors,
)
from orchestrator.client_collections import AsyncCollections, Collections
from orchestrator.errors import CollegiumError
from orchestrator.streaming import AsyncStream, Stream, translated
from orchestrator.wire import (
    CacheDeletion,
    ChatCompletion,
    Feedback,
    ModelCard,
    ModelList,
    RoutingReport,
)

DEFAULT_TIMEOUT = httpx.Timeout(120.0, connect=5.0)
"""Seconds without a byte, and seconds to connect."""

_MODELS = Call("GET", "v1/models")


class Client(Caller):
    """Speaks to a Collegium service from ordinary code; may be shared between threads.

    Without arguments it reads COLLEGIUM_BASE_URL (else http://127.0.0.1:8000) and
    COLLEGIUM_API_KEY. `timeout` is in seconds. Requests refused with 429 or 503 and broken
    connections are tried again up to `max_retries` times, never after a stream has begun.
    """

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        timeout: float | httpx.Timeout = DEFAULT_TIMEOUT,
        max_retries: int = 2,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        super().__init__(base_url, api_key, max_retries)
        self._http = httpx.Client(
            base_url=self.base_url,
            headers=self._headers(),
            timeout=timeout,
            trust_env=self._uses_proxies(),
            transport=transport,
        )
        self.collections = Collections(self._send)

    def chat(
        self,
        messages: Messages,
        *,
        model: str = "auto",
        routing: Routing | None = None,
        **sampling: Unpack[Sampling],
    ) -> Answer:
        """Ask and wait for the whole answer; a plain string is one user message."""
        call = chat_call(messages, model, routing, sampling)
        return Answer(parsed(ChatCompletion, self._send(call)))

    def stream(
        self,
        messages: Messages,
        *,
        model: str = "auto",
        routing: Routing | None = None,
        **sampling: Unpack[Sampling],
    ) -> Stream:
        """Ask and read the answer while it is written. See `Client.chat` for the arguments."""
        call = stream_call(messages, model, routing, sampling)
        return Stream(lambda: self._send(call))

    def route(
        self,
        messages: Messages,
        *,
        model: str = "auto",
        routing: Routing | None = None,
        **sampling: Unpack[Sampling],
    ) -> RoutingReport:
        """Return the decision that `Client.chat` would meet, without generating anything."""
        call = route_call(messages, model, routing, sampling)
        return parsed(RoutingReport, self._send(call))

    def models(self) -> list[ModelCard]:
        """List the names that may stand in `model`."""
        return parsed(ModelList, self._send(_MODELS)).data

    def embeddings(
        self, texts: str | Sequence[str], *, model: str = "auto", dimensions: int | None = None
    ) -> list[list[float]]:
        """Embed texts: one vector for each, in their order."""
        call = embeddings_call(texts, model, dimensions)
        return vectors(self._send(call))

    def feedback(
        self,
        decision_id: str,
        thumb: str | None = None,
        *,
        score: float | None = None,
        expert: str | None = None,
        comment: str | None = None,
    ) -> Feedback:
        """Say how good a decision was: `thumb` up or down, or a `score` from -1 to 1.

        `decision_id` is that of `answer.routing`; `expert` names who should have answered. Saying
        it again replaces what was said before.
        """
        call = feedback_call(decision_id, thumb, score, expert, comment)
        return parsed(Feedback, self._send(call))

    def clear_cache(self) -> int:
        """Remove the answers that the service keeps for the caller's tenant; how many there were.

        Raises `NotFound` where the service keeps none, `PermissionDenied` where the caller may not.
        """
        return parsed(CacheDeletion, self._send(CLEAR_CACHE)).answers

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _send(self, call: Call) -> httpx.Response:
        attempt = 0
        while True:
            try:
                return self._try(call)
            except CollegiumError as error:
                time.sleep(pause(error, attempt, self.max_retries))
            attempt += 1

    def _try(self, call: Call) -> httpx.Response:
        with translated():
            response = self._http.send(call.request(self._http), stream=True)
            if call.streamed and response.is_success:
                return response
            try:
                response.read()
            finally:
                response.close()
        return succeeded(response)


class AsyncClient(Caller):
    """See `Client`: the same methods, awaited."""

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        timeout: float | httpx.Timeout = DEFAULT_TIMEOUT,
        max_retries: int = 2,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        super().__init__(base_url, api_key, max_retries)
        self._http = httpx.AsyncClient(
            base_url=self.base_url,
            headers=self._headers(),
            timeout=timeout,
            trust_env=self._uses_proxies(),
            transport=transport,
        )
        self.collections = AsyncCollections(self._send)

    async def chat(
        self,
        messages: Messages,
        *,
        model: str = "auto",
        routing: Routing | None = None,
        **sampling: Unpack[Sampling],
    ) -> Answer:
        """See `Client.chat`."""
        call = chat_call(messages, model, routing, sampling)
        return Answer(parsed(ChatCompletion, await self._send(call)))

    def stream(
        self,
        messages: Messages,
        *,
        model: str = "auto",
        routing: Routing | None = None,
        **sampling: Unpack[Sampling],
    ) -> AsyncStream:
        """See `Client.stream`; not awaited itself."""
        call = stream_call(messages, model, routing, sampling)
        return AsyncStream(lambda: self._send(call))

    async def route(
        self,
        messages: Messages,
        *,
        model: str = "auto",
        routing: Routing | None = None,
        **sampling: Unpack[Sampling],
    ) -> RoutingReport:
        """See `Client.route`."""
        call = route_call(messages, model, routing, sampling)
        return parsed(RoutingReport, await self._send(call))

    async def models(self) -> list[ModelCard]:
        """See `Client.models`."""
        return parsed(ModelList, await self._send(_MODELS)).data

    async def embeddings(
        self, texts: str | Sequence[str], *, model: str = "auto", dimensions: int | None = None
    ) -> list[list[float]]:
        """See `Client.embeddings`."""
        call = embeddings_call(texts, model, dimensions)
        return vectors(await self._send(call))

    async def feedback(
        self,
        decision_id: str,
        thumb: str | None = None,
        *,
        score: float | None = None,
        expert: str | None = None,
        comment: str | None = None,
    ) -> Feedback:
        """See `Client.feedback`."""
        call = feedback_call(decision_id, thumb, score, expert, comment)
        return parsed(Feedback, await self._send(call))

    async def clear_cache(self) -> int:
        """See `Client.clear_cache`."""
        return parsed(CacheDeletion, await self._send(CLEAR_CACHE)).answers

    async def aclose(self) -> None:
        """See `Client.close`."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def _send(self, call: Call) -> httpx.Response:
        attempt = 0
        while True:
            try:
                return await self._try(call)
            except CollegiumError as error:
                await asyncio.sleep(pause(error, attempt, self.max_retries))
            attempt += 1

    async def _try(self, call: Call) -> httpx.Response:
        with translated():
            response = await self._http.send(call.request(self._http), stream=True)
            if call.streamed and response.is_success:
                return response
            try:
                await response.aread()
            finally:
                await response.aclose()
        return succeeded(response)
