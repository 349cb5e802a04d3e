"""What a gateway replica counts of its answer cache."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge


class CacheMetrics:
    """The counters of the cache, among those of `registry`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.lookups = Counter(
            "collegium_cache_lookups",
            "Answers looked for in the cache, by what was found.",
            ["kind"],
            registry=registry,
        )
        self.saved_tokens = Counter(
            "collegium_cache_saved_tokens",
            "Tokens of answers that were given again.",
            registry=registry,
        )
        self.faults = Counter(
            "collegium_cache_faults", "Times that the cache's file failed.", registry=registry
        )
        self.entries = Gauge("collegium_cache_entries", "Answers that are kept.", registry=registry)
        self.bytes = Gauge("collegium_cache_bytes", "Their bytes.", registry=registry)
