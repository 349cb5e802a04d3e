"""The doorway: what is refused before a body is parsed. Pure ASGI."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator.config import LimitsConfig
from orchestrator.errors import (
    CollegiumError,
    PayloadTooLarge,
    PermissionDenied,
    UnsupportedMediaType,
    to_body,
)
from orchestrator.hosts import ANY, is_known
from orchestrator.origin import is_foreign

_JSON = "application/json"
_FORM = "multipart/form-data"
_UPLOAD = re.compile(r"/v1/collections/[^/]+/documents/?")


class Doorway:
    """Refuses bodies of a kind that is not read here or longer than the limit, declared or not.

    So it does requests under a name that is not one of `hosts` (`orchestrator/hosts.py`). Forms and
    deletions from a browser's page of another origin are refused as well; JSON a browser sends
    there only after it was allowed to, and here nothing allows it.

    Bodies are JSON; documents may come as a form as well. What is uploaded is passed on as it
    arrives: who takes it in bounds how much of it lies in memory.
    """

    def __init__(self, app: ASGIApp, limits: LimitsConfig, hosts: Sequence[str] = (ANY,)) -> None:
        self._app, self._limits, self._hosts = app, limits, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI entry."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in scope["headers"]}
        if not is_known(headers.get("host", ""), self._hosts):
            await _refuse(send, _misnamed(headers))
        elif scope["method"] == "POST":
            await self._post(scope, receive, send, headers)
        elif scope["method"] == "DELETE" and is_foreign(headers):
            await _refuse(send, _elsewhere(headers))
        else:
            await self._app(scope, receive, send)

    async def _post(
        self, scope: Scope, receive: Receive, send: Send, headers: dict[str, str]
    ) -> None:
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        declared = headers.get("content-length", "")
        upload = _UPLOAD.fullmatch(scope["path"]) is not None
        allowed = (_JSON, _FORM) if upload else (_JSON,)
        if kind not in allowed:
            error: CollegiumError = UnsupportedMediaType(
                f"`content-type` must be {' or '.join(allowed)}, but {kind or 'nothing'!r} was "
                "sent.",
                param="content-type",
            )
            await _refuse(send, error)
        elif declared.isdecimal() and int(declared) > self._limit(upload):
            await _refuse(send, self._too_large(upload))
        elif kind == _FORM and is_foreign(headers):
            await _refuse(send, _elsewhere(headers))
        elif upload:
            await self._app(scope, self._counted(receive), send)
        else:
            await self._read(scope, receive, send)

    async def _read(self, scope: Scope, receive: Receive, send: Send) -> None:
        body, more = bytearray(), True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > self._limit(upload=False):
                await _refuse(send, self._too_large(upload=False))
                return
        whole: list[Message] = [{"type": "http.request", "body": bytes(body), "more_body": False}]

        async def replay() -> Message:
            return whole.pop() if whole else await receive()

        await self._app(scope, replay, send)

    def _counted(self, receive: Receive) -> Receive:
        taken = 0

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self._limit(upload=True):
                raise self._too_large(upload=True)
            return message

        return counted

    def _limit(self, upload: bool) -> int:
        return self._limits.max_upload_bytes if upload else self._limits.max_body_bytes

    def _too_large(self, upload: bool) -> PayloadTooLarge:
        what, param = (
            ("send fewer files", "files") if upload else ("shorten `messages`", "messages")
        )
        return PayloadTooLarge(
            f"The body is over {self._limit(upload)} bytes: {what}.", param=param
        )


def _misnamed(headers: dict[str, str]) -> PermissionDenied:
    host = headers.get("host", "")[:200]
    return PermissionDenied(
        f"Nothing is served here under the name {host!r}. Use an address or localhost, or name it "
        "in `server.allowed_hosts` of the service's configuration.",
        param="host",
    )


def _elsewhere(headers: dict[str, str]) -> PermissionDenied:
    origin = headers["origin"][:200]
    return PermissionDenied(f"A page of {origin!r} may not change what is served here.")


async def _refuse(send: Send, error: CollegiumError) -> None:
    body = json.dumps(to_body(error).model_dump()).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
