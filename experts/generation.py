"""What goes into an expert and what comes out: the values that cross the process boundary."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class ExpertError(RuntimeError):
    """An expert could not answer; the message says which and why."""


class PromptTooLong(ExpertError):
    """Prompt and `max_tokens` do not fit the model's context."""

    def __init__(self, tokens: int, limit: int) -> None:
        super().__init__(tokens, limit)
        self.tokens, self.limit = tokens, limit

    def __str__(self) -> str:
        return (
            f"the prompt has {self.tokens} tokens, at most {self.limit} fit: shorten the messages"
        )


class Busy(ExpertError):
    """The waiting line is full; try again later."""


class Late(ExpertError):
    """The deadline of the request has passed; what was not written will not be."""


class FinishReason(StrEnum):
    """Why an answer ended, in OpenAI's words."""

    STOP = "stop"
    LENGTH = "length"
    CONTENT_FILTER = "content_filter"


class LocalMode(StrEnum):
    """How experts of one base model are combined inside one replica."""

    SINGLE = "single"
    BLEND = "blend"
    MIXTURE = "mixture"


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen from the (combined) distribution.

    `temperature` 0 is greedy. `logprobs` is None for off, else how many alternatives to report.
    """

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    logprobs: int | None = None


@dataclass(frozen=True)
class Generation:
    """One request to an expert deployment.

    `experts` are (name, weight) with weights that sum to 1; `messages` are (role, text).
    `posterior` updates a mixture's weights by the likelihood of the text so far. A larger
    `priority` goes first, `deadline_s` seconds from now the answer ends with an error, and requests
    of equal priority share the expert evenly between principals. `trace` carries the W3C trace
    context.
    """

    id: str
    messages: tuple[tuple[str, str], ...]
    experts: tuple[tuple[str, float], ...]
    sampling: Sampling
    mode: LocalMode = LocalMode.SINGLE
    posterior: bool = False
    priority: int = 0
    deadline_s: float | None = None
    principal: str = ""
    trace: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class TokenLogprob:
    """A token with its natural-log probability under the combined distribution, untempered."""

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Usage:
    """Token counts of one request, by the tokenizer of the expert that answered."""

    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class Chunk:
    """A piece of the answer; the last one carries `finish_reason` and `usage`."""

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    method: str = ""


@dataclass(frozen=True)
class Scoring:
    """Ask for the log-likelihood of `text` as the answer to `messages` under one expert."""

    messages: tuple[tuple[str, str], ...]
    text: str
    expert: str
    trace: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Score:
    """Log-likelihood in nats of a text, with its size in tokens and UTF-8 bytes."""

    logprob: float
    tokens: int
    bytes: int

    @property
    def bits_per_byte(self) -> float:
        """Comparable across tokenizers: -log2 p(text) / bytes."""
        return -self.logprob / (0.6931471805599453 * max(self.bytes, 1))


@dataclass(frozen=True)
class Health:
    """What an expert deployment says of itself."""

    experts: tuple[str, ...]
    device: str
    running: int
    waiting: int
    pid: int
    details: dict[str, str] = field(default_factory=dict)
