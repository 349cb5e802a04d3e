"""Collegium: one OpenAI-compatible endpoint in front of many domain experts.

This package's face is the client SDK, which needs httpx and pydantic only:

    from orchestrator import Client

The service itself lives in its modules and is started by `collegium serve`.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from orchestrator.answer import Answer
    from orchestrator.client import AsyncClient, Client
    from orchestrator.errors import (
        AuthenticationFailed,
        CollegiumError,
        ConnectionFailed,
        ContextTooLong,
        DeadlineExceeded,
        ExpertUnavailable,
        InternalError,
        InvalidRequest,
        NotFound,
        Overloaded,
        PayloadTooLarge,
        PermissionDenied,
        TimedOut,
        Unprocessable,
        UnreadableResponse,
        UnsupportedMediaType,
    )
    from orchestrator.events import TextEvent
    from orchestrator.streaming import AsyncStream, Stream
    from orchestrator.wire import RoutingOptions

__all__ = [
    "Answer",
    "AsyncClient",
    "AsyncStream",
    "AuthenticationFailed",
    "Client",
    "CollegiumError",
    "ConnectionFailed",
    "ContextTooLong",
    "DeadlineExceeded",
    "ExpertUnavailable",
    "InternalError",
    "InvalidRequest",
    "NotFound",
    "Overloaded",
    "PayloadTooLarge",
    "PermissionDenied",
    "RoutingOptions",
    "Stream",
    "TextEvent",
    "TimedOut",
    "Unprocessable",
    "UnreadableResponse",
    "UnsupportedMediaType",
    "__version__",
]

_HOMES = {
    "Answer": "answer",
    "AsyncClient": "client",
    "AsyncStream": "streaming",
    "Client": "client",
    "RoutingOptions": "wire",
    "Stream": "streaming",
    "TextEvent": "events",
}


def __getattr__(name: str) -> object:
    # Found on first use: httpx brings its own command line (click, rich) along, and a process of
    # the service that imports one module of this package should not pay for the client.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'errors')}"), name)


def __dir__() -> list[str]:
    return __all__
