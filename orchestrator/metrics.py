"""What a gateway replica counts, in Prometheus' text form."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from orchestrator.cache_metrics import CacheMetrics

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """The counters of one gateway replica; scrape every replica and sum."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        registry = self._registry
        self.requests = Counter(
            "collegium_requests", "Finished requests.", ["path", "status"], registry=registry
        )
        self.open = Gauge("collegium_open_requests", "Requests in flight.", registry=registry)
        self.seconds = Histogram(
            "collegium_request_seconds",
            "Seconds from arrival to the end of the answer.",
            ["path"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.first_token = Histogram(
            "collegium_first_token_seconds",
            "Seconds from arrival to the first token.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.tokens = Counter(
            "collegium_tokens", "Tokens read and written.", ["kind"], registry=registry
        )
        self.answers = Counter(
            "collegium_answers", "Answers by expert that spoke.", ["expert"], registry=registry
        )
        self.decisions = Counter(
            "collegium_decisions", "Routing decisions by mode.", ["mode"], registry=registry
        )
        self.fallbacks = Counter(
            "collegium_fallbacks",
            "Answers of the generalist in an expert's place.",
            registry=registry,
        )
        self.citations = Counter("collegium_citations", "Marks placed.", registry=registry)
        self.logged = Counter(
            "collegium_logged_decisions", "Decisions in the log.", registry=registry
        )
        self.unlogged = Counter(
            "collegium_unlogged_decisions",
            "Decisions that were not kept: the queue was full, or a fault.",
            ["why"],
            registry=registry,
        )
        self.feedback = Counter(
            "collegium_feedback",
            "Opinions stored, by their sign and whether they name another expert.",
            ["score", "corrected"],
            registry=registry,
        )

        self.cache = CacheMetrics(registry)

    def text(self) -> bytes:
        """The exposition, text format 0.0.4."""
        return generate_latest(self._registry)
