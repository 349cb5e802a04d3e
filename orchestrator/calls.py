"""Calls of the SDK: what a request says, what its response means, when to try again.

Nothing here sends, so that the client for threads and the one for asyncio share it all.
"""

import base64
import json
import os
import random
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypedDict, TypeVar

import httpx
from pydantic import BaseModel, SecretStr, ValidationError

from orchestrator import __version__
from orchestrator.errors import (
    CollegiumError,
    ConnectionFailed,
    ExpertUnavailable,
    InvalidRequest,
    Overloaded,
    TimedOut,
    UnreadableResponse,
    from_response,
    from_validation,
)
from orchestrator.validation import sentence
from orchestrator.wire import (
    ChatMessage,
    ChatRequest,
    EmbeddingsRequest,
    EmbeddingsResponse,
    FeedbackRequest,
    RoutingOptions,
    StreamOptions,
)

DEFAULT_BASE_URL = "http://127.0.0.1:8000"

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 8.0
"""Seconds before the second try, doubled for each further one, and where the doubling ends."""

LONGEST_WAIT = 60.0
"""A server that asks for more (seconds) is not asked again; the error is raised at once."""

Messages = str | Sequence[ChatMessage | Mapping[str, object]]
Routing = RoutingOptions | Mapping[str, object]
Model = TypeVar("Model", bound=BaseModel)


class Sampling(TypedDict, total=False):
    """The sampling options of a chat, as in OpenAI's API; see `orchestrator.wire.ChatRequest`."""

    max_tokens: int
    max_completion_tokens: int
    temperature: float
    top_p: float
    seed: int
    stop: str | Sequence[str]
    logprobs: bool
    top_logprobs: int
    user: str
    metadata: Mapping[str, str]
    store: bool


@dataclass(frozen=True)
class Call:
    """One call of the API, before it is sent; `path` is relative to the base URL.

    `files` (name, bytes, media type) and `fields` make a form, in place of `body`. A `patient` one
    waits for its answer as long as the connection holds.
    """

    method: str
    path: str
    body: BaseModel | None = None
    streamed: bool = False
    params: Mapping[str, str] = field(default_factory=dict)
    files: Sequence[tuple[str, bytes, str]] = ()
    fields: Mapping[str, str] = field(default_factory=dict)
    patient: bool = False

    def request(self, http: httpx.Client | httpx.AsyncClient) -> httpx.Request:
        """Build the HTTP request with the settings of `http`."""
        seconds = http.timeout.as_dict() | ({"read": None} if self.patient else {})
        timeout = httpx.Timeout(**seconds)
        if self.files:
            parts = [("files", part) for part in self.files]
            fields = dict(self.fields)
            return http.build_request(
                self.method, self.path, data=fields, files=parts, timeout=timeout
            )
        if self.body is None:
            return http.build_request(self.method, self.path, params=dict(self.params))
        # Escaped to ASCII: a text may hold lone surrogates, as file names and arguments do.
        content = json.dumps(self.body.model_dump(mode="json", exclude_none=True))
        headers = {"Content-Type": "application/json"}
        return http.build_request(
            self.method, self.path, content=content, headers=headers, timeout=timeout
        )


class Caller:
    """What both clients are: an address, a key, and some patience (`max_retries`)."""

    def __init__(self, base_url: str | None, api_key: str | None, max_retries: int) -> None:
        url = base_url or os.environ.get("COLLEGIUM_BASE_URL") or DEFAULT_BASE_URL
        self.base_url = _checked_url(url)
        self.max_retries = max_retries
        self._key = _checked_key(api_key or os.environ.get("COLLEGIUM_API_KEY") or "")

    def __repr__(self) -> str:
        key = "'***'" if self._key.get_secret_value() else None
        return f"{type(self).__name__}(base_url={self.base_url!r}, api_key={key})"

    def _headers(self) -> dict[str, str]:
        headers = {"User-Agent": f"collegium-python/{__version__}"}
        if key := self._key.get_secret_value():
            headers["Authorization"] = f"Bearer {key}"
        return headers

    def _uses_proxies(self) -> bool:
        # A proxy for the outside world cannot reach this machine's own loopback.
        host = self.base_url.host
        return not (host in ("localhost", "::1") or host.startswith("127."))


def pause(error: CollegiumError, attempt: int, max_retries: int) -> float:
    """Seconds to wait before the next try; raises the error itself when there is to be none.

    `attempt` counts from 0. Waits double, with jitter so that many clients do not come back at
    once; a server's `Retry-After` is obeyed instead. A request that timed out may still be at work
    in the service, so it is not sent twice.
    """
    passing = isinstance(error, Overloaded | ExpertUnavailable | ConnectionFailed)
    if not passing or isinstance(error, TimedOut) or attempt >= max_retries:
        raise error
    if error.retry_after is None:
        return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(attempt, 9)) * random.uniform(0.5, 1.0)
    if error.retry_after > LONGEST_WAIT:
        raise error
    return error.retry_after * random.uniform(1.0, 1.2)


def chat_call(messages: Messages, model: str, routing: Routing | None, options: Sampling) -> Call:
    """Build the call for a whole answer."""
    return Call("POST", "v1/chat/completions", _chat_request(messages, model, routing, options))


def stream_call(messages: Messages, model: str, routing: Routing | None, options: Sampling) -> Call:
    """Build the call for a streamed answer, usage included."""
    request = _chat_request(messages, model, routing, options)
    streaming = {"stream": True, "stream_options": StreamOptions(include_usage=True)}
    body = request.model_copy(update=streaming)
    return Call("POST", "v1/chat/completions", body, streamed=True)


def route_call(messages: Messages, model: str, routing: Routing | None, options: Sampling) -> Call:
    """Build the call for a decision alone."""
    return Call("POST", "v1/route", _chat_request(messages, model, routing, options))


def embeddings_call(texts: str | Sequence[str], model: str, dimensions: int | None) -> Call:
    """Build the call for vectors, asking for the compact encoding."""
    fields = {
        "input": texts if isinstance(texts, str) else list(texts),
        "model": model,
        "dimensions": dimensions,
        "encoding_format": "base64",
    }
    return Call("POST", "v1/embeddings", checked(EmbeddingsRequest, fields))


def feedback_call(
    decision_id: str,
    thumb: str | None,
    score: float | None,
    expert: str | None,
    comment: str | None,
) -> Call:
    """Build the call that says how good a decision was."""
    fields = {
        "decision_id": decision_id,
        "thumb": thumb,
        "score": score,
        "expert": expert,
        "comment": comment,
    }
    return Call("POST", "v1/feedback", checked(FeedbackRequest, fields))


CLEAR_CACHE = Call("DELETE", "v1/cache")


def succeeded(response: httpx.Response) -> httpx.Response:
    """Return the response, or raise the error that it tells of."""
    if response.is_success:
        return response
    raise from_response(response.status_code, response.content, response.headers)


def parsed(kind: type[Model], response: httpx.Response) -> Model:
    """Read a body as one of the wire's classes."""
    try:
        return kind.model_validate_json(response.content)
    except ValidationError as exc:
        why = sentence(exc.errors()[0])
        raise UnreadableResponse(f"The server sent no {kind.__name__}. {why}") from exc


def vectors(response: httpx.Response) -> list[list[float]]:
    """Read the vectors of an embeddings response, in the order of the texts."""
    rows = sorted(parsed(EmbeddingsResponse, response).data, key=lambda row: row.index)
    return [_floats(row.embedding) for row in rows]


def _floats(value: list[float] | str) -> list[float]:
    if not isinstance(value, str):
        return value
    try:
        raw = base64.b64decode(value, validate=True)
        return list(struct.unpack(f"<{len(raw) // 4}f", raw))
    except (ValueError, struct.error) as exc:
        raise UnreadableResponse("The server sent an embedding that is not float32.") from exc


def _chat_request(
    messages: Messages, model: str, routing: Routing | None, options: Sampling
) -> ChatRequest:
    foreign = sorted({"stream", "stream_options"} & options.keys())
    if foreign:
        message = f"`{foreign[0]}` is not an option here; call `stream` instead."
        raise InvalidRequest(message, param=foreign[0])
    turns = [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
    fields = {"model": model, "messages": turns, "routing": routing, **options}
    return checked(ChatRequest, fields)


def checked(kind: type[Model], fields: Mapping[str, object]) -> Model:
    """Check fields as one of the wire's requests. Raises `InvalidRequest`."""
    try:
        return kind.model_validate(fields)
    except ValidationError as exc:
        raise from_validation(exc) from exc


def _checked_url(text: str) -> httpx.URL:
    try:
        url = httpx.URL(text.strip().rstrip("/").removesuffix("/v1"))
    except httpx.InvalidURL as exc:
        raise InvalidRequest(f"`base_url` is no URL: {exc}.", param="base_url") from exc
    if url.scheme not in ("http", "https") or not url.host:
        wanted = f"must look like {DEFAULT_BASE_URL}, but {text!r} was given"
        raise InvalidRequest(f"`base_url` {wanted}.", param="base_url")
    return url


def _checked_key(text: str) -> SecretStr:
    key = text.strip()
    if not all("!" <= character <= "~" for character in key):
        message = "`api_key` may hold visible ASCII characters only, as an HTTP header requires."
        raise InvalidRequest(message, param="api_key")
    return SecretStr(key)
