"""Who asks, and what they may use."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Principal:
    """A caller. `experts` and `collections` are the names it may use; None means all."""

    tenant: str = "default"
    experts: frozenset[str] | None = None
    collections: frozenset[str] | None = None

    def may_ask(self, expert: str) -> bool:
        """Whether the caller may be answered by this expert."""
        return self.experts is None or expert in self.experts

    def may_read(self, collection: str) -> bool:
        """Whether the caller may be shown passages of this collection."""
        return self.collections is None or collection in self.collections


EVERYONE = Principal()
"""The principal of requests that carry no key."""
