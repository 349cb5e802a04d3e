"""Where a request comes from, as a browser tells it: a page of the service itself, or of another.

Browsers send forms to any address without asking it first, with the page's origin in `Origin`
(https://www.rfc-editor.org/rfc/rfc6454#section-7); ordinary clients send no such header.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import SplitResult, urlsplit

_PORTS = {"http": 80, "https": 443}


def is_foreign(headers: Mapping[str, str]) -> bool:
    """Whether `Origin` is given and its host and port are not those of `Host`.

    Names of the headers are in lower case. A port that is not written is that of the origin's
    scheme, on both sides: TLS may end before the service.
    """
    origin = headers.get("origin")
    if origin is None:
        return False
    try:
        page, own = urlsplit(origin), urlsplit(f"//{headers.get('host', '')}")
        default = _PORTS.get(page.scheme)
        return not page.hostname or _place(page, default) != _place(own, default)
    except ValueError:
        return True


def _place(url: SplitResult, default: int | None) -> tuple[str | None, int | None]:
    return url.hostname, url.port or default
