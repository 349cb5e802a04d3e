"""The words spoken over HTTP: OpenAI's chat and embedding objects, and what Collegium adds to them.

Server and SDK share these classes. The requests (strict, from `orchestrator.request`) are named
here again, so that this one module is the whole vocabulary. Responses are lenient: unknown fields
are ignored, so that an older client reads a newer server; `model_dump_json()` of a response is its
wire form. Shapes follow https://platform.openai.com/docs/api-reference; the additions are
`x_routing` and the passage fields of citations.
"""

from typing import Literal

from orchestrator.content import FileData, FilePart, TextPart
from orchestrator.request import (
    CacheUse,
    ChatMessage,
    ChatRequest,
    EmbeddingsRequest,
    FeedbackRequest,
    Grounding,
    Mode,
    Role,
    RoutingOptions,
    StreamOptions,
    Thumb,
    Weighting,
)
from orchestrator.response import OMITTED
from orchestrator.response import Response as _Response
from orchestrator.routing_report import (
    RoutedCache,
    RoutedEvidence,
    RoutedExpert,
    RoutedOthers,
    RoutedSupport,
    RoutingReport,
)
from orchestrator.strict_model import StrictModel

__all__ = [
    "Annotation",
    "CacheDeletion",
    "CacheUse",
    "ChatCompletion",
    "ChatCompletionChunk",
    "ChatMessage",
    "ChatRequest",
    "Choice",
    "ChoiceLogprobs",
    "ChunkChoice",
    "Delta",
    "Embedding",
    "EmbeddingsRequest",
    "EmbeddingsResponse",
    "ErrorBody",
    "ErrorDetail",
    "Feedback",
    "FeedbackRequest",
    "FileData",
    "FilePart",
    "Grounding",
    "Mode",
    "ModelCard",
    "ModelList",
    "ResponseMessage",
    "Role",
    "RoutedCache",
    "RoutedEvidence",
    "RoutedExpert",
    "RoutedOthers",
    "RoutedSupport",
    "RoutingOptions",
    "RoutingReport",
    "StreamOptions",
    "StrictModel",
    "TextPart",
    "Thumb",
    "TokenLogprob",
    "TopLogprob",
    "UrlCitation",
    "Usage",
    "Weighting",
]


class Usage(_Response):
    """Token counts of one request; an embedding has no completion."""

    prompt_tokens: int
    completion_tokens: int = 0
    total_tokens: int


class UrlCitation(_Response):
    """One citation: its mark is `text[start_index:end_index]` of the answer, a string like "[1]".

    `start` and `end` are character offsets of the passage in its document; `score` is 0 to 1.
    `page` and `line` (of the document's text) are where it begins, where known; `sha256` is that of
    the original file.
    """

    start_index: int
    end_index: int
    title: str
    url: str
    collection: str
    passage_id: str
    start: int
    end: int
    score: float
    page: int | None = OMITTED
    line: int | None = OMITTED
    sha256: str | None = OMITTED


class Annotation(_Response):
    """OpenAI's wrapping of a citation."""

    type: Literal["url_citation"] = "url_citation"
    url_citation: UrlCitation


class TopLogprob(_Response):
    """One alternative at a position: its text, natural-log probability and UTF-8 bytes."""

    token: str
    logprob: float
    bytes: list[int] | None = None


class TokenLogprob(TopLogprob):
    """The token at a position, with the likeliest alternatives, best first."""

    top_logprobs: list[TopLogprob] = []


class ChoiceLogprobs(_Response):
    """Log-probabilities of the answer's tokens, in order; a mixture's are those of the mixture."""

    content: list[TokenLogprob] | None = None
    refusal: list[TokenLogprob] | None = None


class ResponseMessage(_Response):
    """The assistant's turn."""

    role: Literal["assistant"] = "assistant"
    content: str | None = None
    refusal: str | None = None
    annotations: list[Annotation] = []


class Choice(_Response):
    """The answer of a whole (not streamed) completion."""

    index: int = 0
    message: ResponseMessage
    logprobs: ChoiceLogprobs | None = None
    finish_reason: str | None = None


class ChatCompletion(_Response):
    """The body that answers `POST /v1/chat/completions`; `created` is in seconds since 1970."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage | None = OMITTED
    system_fingerprint: str | None = OMITTED
    x_routing: RoutingReport | None = OMITTED


class Delta(_Response):
    """What one chunk adds to the message."""

    role: Literal["assistant"] | None = OMITTED
    content: str | None = OMITTED
    annotations: list[Annotation] | None = OMITTED


class ChunkChoice(_Response):
    """One chunk's part of the answer; the last one carries `finish_reason` and all annotations."""

    index: int = 0
    delta: Delta
    logprobs: ChoiceLogprobs | None = None
    finish_reason: str | None = None


class ChatCompletionChunk(_Response):
    """One event of a stream; the usage chunk has no choices."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: Usage | None = OMITTED
    system_fingerprint: str | None = OMITTED
    x_routing: RoutingReport | None = OMITTED


class ModelCard(_Response):
    """One name that may stand in a request's `model`."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "collegium"
    description: str | None = OMITTED


class ModelList(_Response):
    """The body that answers `GET /v1/models`."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class Embedding(_Response):
    """One vector: a list of floats, or base64 of little-endian float32."""

    index: int
    object: Literal["embedding"] = "embedding"
    embedding: list[float] | str


class EmbeddingsResponse(_Response):
    """The body that answers `POST /v1/embeddings`; `data` keeps the order of the inputs."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: Usage


class CacheDeletion(_Response):
    """How many kept answers were removed."""

    object: Literal["cache.deleted"] = "cache.deleted"
    answers: int


class Feedback(_Response):
    """The body that answers `POST /v1/feedback`: what is kept about the decision now."""

    object: Literal["feedback"] = "feedback"
    decision_id: str
    score: float | None = None
    expert: str | None = None
    comment: str | None = None
    replaced: bool = False


class ErrorDetail(_Response):
    """OpenAI's error object; `param` is the dotted path of the key at fault."""

    message: str
    type: str | None = None
    param: str | None = None
    code: str | None = None


class ErrorBody(_Response):
    """The body of every error, and the last event of a stream that fails."""

    error: ErrorDetail
