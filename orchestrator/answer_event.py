"""What the answer to a task consists of while it is streamed: pieces of text, then one end."""

from __future__ import annotations

from dataclasses import dataclass

from experts.generation import FinishReason, TokenLogprob, Usage
from orchestrator.wire import RoutingReport
from retrieval.attribution import Citation


@dataclass(frozen=True)
class Delta:
    """A piece of the answer, marks included.

    `cache` tells what the cache found, as in `RoutedCache.kind`; None where it was not asked.
    """

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()
    cache: str | None = None


@dataclass(frozen=True)
class Finish:
    """The end of the answer."""

    reason: FinishReason
    usage: Usage
    citations: tuple[Citation, ...]
    routing: RoutingReport

    @property
    def cache(self) -> str | None:
        """See `Delta`."""
        return self.routing.cache.kind if self.routing.cache else None

    @property
    def given_again(self) -> bool:
        """Whether the answer is a kept one."""
        return self.cache not in (None, "miss")
