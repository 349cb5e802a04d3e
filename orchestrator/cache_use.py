"""How a request may use the cache: the stricter of its body and its header."""

from __future__ import annotations

from orchestrator.request import CacheUse

CACHE_HEADER = "x-collegium-cache"
"""The header of a response that tells what the cache found."""

_STRICTNESS = (CacheUse.USE, CacheUse.REFRESH, CacheUse.SKIP)
_DIRECTIVES = {"no-cache": CacheUse.REFRESH, "no-store": CacheUse.SKIP}


def cache_use(asked: CacheUse, header: str | None) -> CacheUse:
    """What `routing.cache` and the header `cache-control` allow together.

    `no-cache` and `no-store` are read (RFC 9111, section 5.2.1), other directives are passed over.
    """
    names = {part.partition("=")[0].strip().lower() for part in (header or "").split(",")}
    told = [use for name, use in _DIRECTIVES.items() if name in names]
    return max([asked, *told], key=_STRICTNESS.index)
