"""What a caller may send: the bodies of chat, route and embedding requests, checked strictly.

An unknown key, or one that OpenAI knows and Collegium does not serve, is an error that names it;
null means "not given" wherever a key is optional, as in OpenAI's API
(https://platform.openai.com/docs/api-reference). `routing` is Collegium's own addition.
"""

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Discriminator, Field, JsonValue, Strict, Tag
from pydantic import model_validator as validator

from orchestrator.content import FilePart, Part, TextPart
from orchestrator.identity import HIGHEST_PRIORITY
from orchestrator.language_tag import LanguageTag
from orchestrator.strict_model import StrictModel, refuse

AUTO = "auto"
"""The `model` that leaves the choice to the router."""

LONGEST_SESSION = 128
"""Characters of a session's name."""

LONGEST_DECISION, LONGEST_COMMENT = 128, 2_000
"""Characters of a decision's name, and of a comment on it."""

Count = Annotated[int, Strict(), Field(ge=1)]
Deadline = Annotated[int, Strict(), Field(ge=1, le=86_400_000)]
"""Milliseconds, a day at most."""
Switch = Annotated[bool, Strict()]
Share = Annotated[float, Strict(), Field(gt=0, le=1)]
Probability = Annotated[float, Strict(), Field(ge=0, le=1)]
NonNegative = Annotated[float, Strict(), Field(ge=0)]
Name = Annotated[str, Field(min_length=1)]
Session = Annotated[str, Field(min_length=1, max_length=LONGEST_SESSION)]
Preference = Annotated[float, Strict(), Field(ge=-1, le=1)]
Priority = Annotated[int, Strict(), Field(ge=-HIGHEST_PRIORITY, le=HIGHEST_PRIORITY)]


def _branch(value: object) -> str | None:
    # Tags stand in angle brackets so that errors.from_validation can leave them out of the path.
    if isinstance(value, str):
        return "<text>"
    return "<list>" if isinstance(value, list | tuple) else None


_ONE_OR_LIST = Discriminator(
    _branch,
    custom_error_type="text_or_list",
    custom_error_message="Input should be a string or a list",
)


class Role(StrEnum):
    """Who speaks; `developer` is OpenAI's newer word for `system`."""

    SYSTEM = "system"
    DEVELOPER = "developer"
    USER = "user"
    ASSISTANT = "assistant"


class Mode(StrEnum):
    """How weighted experts become one answer."""

    SINGLE = "single"
    BLEND = "blend"
    MIXTURE = "mixture"
    RANK = "rank"
    FUSE = "fuse"


class Grounding(StrEnum):
    """Whether to retrieve: when it helps, never, or refuse to answer without a passage."""

    AUTO = "auto"
    OFF = "off"
    REQUIRED = "required"


class CacheUse(StrEnum):
    """Whether a kept answer will do: yes, not at all, or only one that is made and kept now."""

    USE = "use"
    SKIP = "skip"
    REFRESH = "refresh"


class Weighting(StrEnum):
    """The router's weights as they are, or updated by each expert's likelihood of the text."""

    ROUTER = "router"
    POSTERIOR = "posterior"


class ChatMessage(StrictModel):
    """One turn; an assistant's may be sent back as it was received, without its annotations."""

    not_served = {"tool_calls": [], "tool_call_id": None, "function_call": None, "audio": None}

    role: Role
    content: Annotated[
        Annotated[str, Tag("<text>")] | Annotated[list[Part], Field(min_length=1), Tag("<list>")],
        _ONE_OR_LIST,
    ]
    name: str | None = None
    refusal: str | None = Field(default=None, exclude=True)
    annotations: list[JsonValue] | None = Field(default=None, exclude=True)

    @property
    def parts(self) -> list[str | FilePart]:
        """The content in parts, those of text as they are written."""
        if isinstance(self.content, str):
            return [self.content]
        return [part.text if isinstance(part, TextPart) else part for part in self.content]

    @property
    def text(self) -> str:
        """What is written in the message itself, attachments apart, as one string."""
        return "".join(part for part in self.parts if isinstance(part, str))


class RoutingOptions(StrictModel):
    """What a caller may say about routing; what is left out is the router's or the config's choice.

    `deadline_ms` counts from arrival, `weights` are non-negative and are normalised to sum to 1; a
    larger `priority` goes first; `max_cost` is in USD, `locale` a BCP 47 language tag. `filter`
    limits grounding to documents of which it holds (see `retrieval.filters`).
    """

    top_k: Count | None = None
    top_p: Share | None = None
    mode: Mode | None = None
    experts: Annotated[list[Name], Field(min_length=1)] | None = None
    min_confidence: Probability | None = None
    collections: list[Name] | None = None
    grounding: Grounding | None = None
    weights: Annotated[dict[str, NonNegative], Field(min_length=1)] | None = None
    weighting: Weighting | None = None
    deadline_ms: Deadline | None = None
    priority: Priority | None = None
    max_cost: NonNegative | None = None
    session: Session | None = None
    locale: LanguageTag | None = None
    preferences: dict[str, Preference] | None = None
    filter: dict[str, JsonValue] | None = None
    cache: CacheUse | None = None

    @validator(mode="after")
    def _weigh_something(self) -> Self:
        if self.weights and not any(self.weights.values()):
            raise refuse("all_zero", "weights", "must give at least one expert more than 0")
        return self


class StreamOptions(StrictModel):
    """Options of a streamed answer."""

    not_served = {"include_obfuscation": False}

    include_usage: Switch | None = None


Stop = Annotated[
    Annotated[Name, Tag("<text>")]
    | Annotated[list[Name], Field(min_length=1, max_length=4), Tag("<list>")],
    _ONE_OR_LIST,
]


class ChatRequest(StrictModel):
    """The body of `POST /v1/chat/completions` and of `POST /v1/route`."""

    not_served = {
        "n": 1,
        "frequency_penalty": 0,
        "presence_penalty": 0,
        "response_format": {"type": "text"},
        "modalities": ["text"],
        "logit_bias": {},
        "tool_choice": "none",
        "service_tier": "auto",
        **dict.fromkeys(("tools", "functions", "function_call", "parallel_tool_calls", "audio")),
        **dict.fromkeys(("prediction", "reasoning_effort", "verbosity", "web_search_options")),
    }

    model: Name = AUTO
    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    temperature: Annotated[float, Strict(), Field(ge=0, le=2)] | None = None
    top_p: Share | None = None
    seed: Annotated[int, Strict(), Field(ge=-(2**63), lt=2**63)] | None = None
    stop: Stop | None = None
    stream: Switch | None = None
    stream_options: StreamOptions | None = None
    logprobs: Switch | None = None
    top_logprobs: Annotated[int, Strict(), Field(ge=0, le=20)] | None = None
    n: Literal[1] | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    user: str | None = None
    metadata: Annotated[dict[str, str], Field(max_length=16)] | None = None
    store: Switch | None = None
    routing: RoutingOptions | None = None

    @validator(mode="after")
    def _agree(self) -> Self:
        if self.top_logprobs is not None and not self.logprobs:
            raise refuse("needs_logprobs", "top_logprobs", "needs `logprobs` to be true")
        if self.stream_options is not None and not self.stream:
            raise refuse("needs_stream", "stream_options", "needs `stream` to be true")
        if None not in (old := self.max_tokens, new := self.max_completion_tokens) and old != new:
            raise refuse("two_limits", "max_tokens", "differs from `max_completion_tokens`")
        return self

    @property
    def token_limit(self) -> int | None:
        """The most tokens to generate, by either of OpenAI's two names."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings, none to four."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())


class EmbeddingsRequest(StrictModel):
    """The body of `POST /v1/embeddings`."""

    input: Annotated[
        Annotated[Name, Tag("<text>")]
        | Annotated[list[Name], Field(min_length=1, max_length=2048), Tag("<list>")],
        _ONE_OR_LIST,
    ]
    model: Name = "auto"
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Count | None = None
    user: str | None = None

    @property
    def texts(self) -> list[str]:
        """The texts to embed, in order."""
        return [self.input] if isinstance(self.input, str) else self.input


def _encodable(text: str) -> str:
    # JSON may carry lone surrogates, which neither files nor responses can hold.
    return text.encode("utf-8", "replace").decode("utf-8")


class Thumb(StrEnum):
    """A score in a word: 1 or -1."""

    UP = "up"
    DOWN = "down"


class FeedbackRequest(StrictModel):
    """The body of `POST /v1/feedback`; at least one of score, thumb and expert."""

    decision_id: Annotated[
        str, Field(min_length=1, max_length=LONGEST_DECISION), AfterValidator(_encodable)
    ]
    score: Preference | None = None
    thumb: Thumb | None = None
    expert: Annotated[Name, AfterValidator(_encodable)] | None = None
    comment: (
        Annotated[str, Field(max_length=LONGEST_COMMENT), AfterValidator(_encodable)] | None
    ) = None

    @validator(mode="after")
    def _say_one_thing(self) -> Self:
        if self.score is not None and self.thumb is not None:
            raise refuse("two_scores", "score", "and `thumb` both say how good it was: give one")
        if self.value is None and self.expert is None:
            raise refuse("no_opinion", "score", "or `thumb` or `expert` must be given")
        return self

    @property
    def value(self) -> float | None:
        """The score, a thumb's included."""
        if self.thumb is not None:
            return 1.0 if self.thumb is Thumb.UP else -1.0
        return self.score
