"""The doorway: what is refused before a body is parsed. Pure ASGI."""

from __future__ import annotations

import json

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator.errors import CollegiumError, PayloadTooLarge, UnsupportedMediaType, to_body


class Doorway:
    """Refuses bodies that are not JSON or longer than `limit` bytes, declared or not."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app, self._limit = app, limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI entry."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        headers = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in scope["headers"]}
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        declared = headers.get("content-length", "")
        if kind != "application/json":
            error: CollegiumError = UnsupportedMediaType(
                f"`content-type` must be application/json, but {kind or 'nothing'!r} was sent.",
                param="content-type",
            )
            await _refuse(send, error)
        elif declared.isdecimal() and int(declared) > self._limit:
            await _refuse(send, self._too_large())
        else:
            await self._read(scope, receive, send)

    async def _read(self, scope: Scope, receive: Receive, send: Send) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > self._limit:
                await _refuse(send, self._too_large())
                return
        whole: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return whole.pop() if whole else await receive()

        await self._app(scope, replay, send)

    def _too_large(self) -> PayloadTooLarge:
        return PayloadTooLarge(
            f"The body is over {self._limit} bytes: shorten `messages`.", param="messages"
        )


async def _refuse(send: Send, error: CollegiumError) -> None:
    body = json.dumps(to_body(error).model_dump()).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
