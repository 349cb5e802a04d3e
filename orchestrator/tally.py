"""The tally: counts every request under `/v1/` that ends before admission would count it."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator.metrics import Metrics

_COUNTED_LATER = "collegium.counted_later"
_GONE = 499


def leave_to_admission(scope: Scope) -> None:
    """Say that `Admission` counts this request: only it knows how a stream ended."""
    scope[_COUNTED_LATER] = True


class Tally:
    """Counts what `leave_to_admission` does not name, by route and status. Pure ASGI.

    The label is the pattern of a route, or `other`: a caller cannot make new ones.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, routes: Sequence[BaseRoute]) -> None:
        self._app, self._metrics, self._routes = app, metrics, routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI entry."""
        if scope["type"] != "http" or not scope["path"].startswith("/v1/"):
            await self._app(scope, receive, send)
            return
        statuses: list[int] = []

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])
            await send(message)

        path, failed = self._label(scope), True
        try:
            await self._app(scope, receive, watched)
            failed = False
        finally:
            # Without a response the caller went away, or what was raised becomes a 500 further out.
            status = statuses[0] if statuses else 500 if failed else _GONE
            if not scope.get(_COUNTED_LATER):
                self._metrics.requests.labels(path, str(status)).inc()

    def _label(self, scope: Scope) -> str:
        for route in self._routes:
            if route.matches(scope)[0] is not Match.NONE:
                return str(getattr(route, "path", "other"))
        return "other"
