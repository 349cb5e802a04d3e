"""The routers in service at one moment, and which of them acts on a request."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from router.router import Router

CURRENT, SHADOW, CANARY = "current", "shadow", "canary"


@dataclass(frozen=True)
class Cast:
    """A router for each role that a version has; `share` of the traffic goes to the canary.

    A request takes one cast when it begins, so nothing changes under it.
    """

    current: Router
    shadow: Router | None = None
    canary: Router | None = None
    share: float = 0.0

    def acting(self, key: str) -> tuple[str, Router]:
        """Return role and router that act on a request with this key; on an empty one, current.

        The same key goes to the same router as long as the canary stays, and a larger share only
        takes keys from the current version.
        """
        if self.canary is not None and key and position(key, self.canary.version) < self.share:
            return CANARY, self.canary
        return CURRENT, self.current

    def roles(self) -> Iterator[tuple[str, str]]:
        """Yield each role that is filled, with the hash of the version."""
        for role in (CURRENT, SHADOW, CANARY):
            router: Router | None = getattr(self, role)
            if router is not None:
                yield role, router.version


def position(key: str, salt: str) -> float:
    """Return the place of a key between 0 and 1, uniform over keys; another salt, another place."""
    digest = hashlib.blake2b(f"{salt}\0{key}".encode("utf-8", "replace"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
