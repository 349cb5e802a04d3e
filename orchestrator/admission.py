"""Admission: how many requests may be open at once, and the count of all that were."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

from experts.generation import Usage
from orchestrator.errors import CollegiumError, Overloaded
from orchestrator.metrics import Metrics
from orchestrator.presence import CallerGone
from orchestrator.wire import RoutingReport


class Admission:
    """Lets `limit` requests in; the next is refused with a 429 and told when to come back."""

    def __init__(self, limit: int, metrics: Metrics) -> None:
        self._limit, self._metrics = limit, metrics
        self._open = 0

    @contextmanager
    def enter(self, path: str) -> Iterator[None]:
        """Hold a place for the time of the block.

        Raises:
            Overloaded: all places are taken.
        """
        if self._open >= self._limit:
            self._metrics.requests.labels(path, "429").inc()
            raise Overloaded(
                f"{self._open} requests are open at this gateway, its limit.", retry_after=1.0
            )
        started, status = time.monotonic(), "500"
        self._open += 1
        self._metrics.open.set(self._open)
        try:
            yield
            status = "200"
        except CollegiumError as error:
            status = str(error.status)
            raise
        except (asyncio.CancelledError, GeneratorExit, CallerGone):
            # Whoever asked went away.
            status = "499"
            raise
        finally:
            self._open -= 1
            self._metrics.open.set(self._open)
            self._metrics.requests.labels(path, status).inc()
            self._metrics.seconds.labels(path).observe(time.monotonic() - started)

    def first_token(self, started: float) -> None:
        """The first token of a request that arrived at `started` (monotonic clock)."""
        self._metrics.first_token.observe(time.monotonic() - started)

    def count(self, routing: RoutingReport, usage: Usage, citations: int) -> None:
        """Count a whole answer; tokens of one that was given again were not computed."""
        if routing.cache is None or routing.cache.kind == "miss":
            self._metrics.tokens.labels("prompt").inc(usage.prompt_tokens)
            self._metrics.tokens.labels("completion").inc(usage.completion_tokens)
        self._metrics.decisions.labels(routing.mode).inc()
        self._metrics.citations.inc(citations)
        self._metrics.fallbacks.inc(int(routing.fallback))
        for expert in routing.experts:
            self._metrics.answers.labels(expert.name).inc()
