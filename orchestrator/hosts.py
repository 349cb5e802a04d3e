"""By which names a service may be called: a wall against DNS rebinding.

A page may have its own name resolve to 127.0.0.1 and then speak, as its own origin, with whatever
listens there; only `Host` tells. Addresses and `localhost` are nobody's names and always pass.
"""

from __future__ import annotations

from collections.abc import Collection
from ipaddress import ip_address
from urllib.parse import urlsplit

ANY = "*"


def is_known(host: str, allowed: Collection[str]) -> bool:
    """Whether a `Host` header, port or none, names an address, localhost or one of `allowed`."""
    if ANY in allowed:
        return True
    try:
        name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return False
    local = name == "localhost" or name.endswith(".localhost")
    return local or _is_address(name) or name in {one.lower() for one in allowed}


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
