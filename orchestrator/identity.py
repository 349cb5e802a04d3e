"""Who asks, and what they may use."""

from __future__ import annotations

from dataclasses import dataclass, replace

HIGHEST_PRIORITY = 10
"""The largest `routing.priority` there is; the smallest is as far below 0."""


@dataclass(frozen=True)
class Principal:
    """A caller. `experts` and `collections` are the names it may use; None means all.

    Of the collections that it may read it may change those in `writable`; None means all of them.

    `max_priority` is the largest `routing.priority` that it may ask for.
    """

    tenant: str = "default"
    experts: frozenset[str] | None = None
    collections: frozenset[str] | None = None
    max_priority: int = 0
    writable: frozenset[str] | None = None

    def may_ask(self, expert: str) -> bool:
        """Whether the caller may be answered by this expert."""
        return self.experts is None or expert in self.experts

    def may_read(self, collection: str) -> bool:
        """Whether the caller may be shown passages of this collection."""
        return self.collections is None or collection in self.collections

    def may_write(self, collection: str) -> bool:
        """Whether the caller may make, fill and remove this collection."""
        return self.may_read(collection) and (self.writable is None or collection in self.writable)


EVERYONE = Principal(max_priority=HIGHEST_PRIORITY)
"""The principal of requests to a service that has no keys."""

READERS = replace(EVERYONE, writable=frozenset())
"""The same where collections may not be changed without a key."""
