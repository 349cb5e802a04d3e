"""Uploads while others are under way, without any model."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from fastapi import FastAPI
from opentelemetry.trace import INVALID_SPAN, Span
from starlette.types import Message, Scope

from orchestrator.collections_desk import CollectionsDesk
from orchestrator.config import LimitsConfig
from orchestrator.doorway import Doorway
from orchestrator.identity import EVERYONE
from orchestrator.refusal import install

DOCUMENTS = "/v1/collections/c/documents"
BODY = {"documents": [{"id": "a", "text": "Words."}]}


class Retriever:
    """Takes uploads in when it is told to."""

    def __init__(self) -> None:
        self.begun: asyncio.Queue[object] = asyncio.Queue()
        self.goes_on = asyncio.Event()

    async def tend(self, errand: object, _trace: object) -> Any:  # noqa: ANN401
        self.begun.put_nowait(errand)
        await self.goes_on.wait()
        return []


class Places:
    """Stands for admission, and counts who holds a place."""

    def __init__(self) -> None:
        self.taken = 0

    @asynccontextmanager
    async def enter(self, *_path: object, **_asked: object) -> AsyncIterator[Span]:
        self.taken += 1
        yield INVALID_SPAN
        self.taken -= 1


def desk(retriever: Retriever, places: Places) -> FastAPI:
    app = FastAPI()
    made: Any = CollectionsDesk(
        LimitsConfig(),
        retriever,  # type: ignore[arg-type]
        lambda _http: EVERYONE,
        places.enter,
    )
    made.install(app)
    install(app)
    app.add_middleware(Doorway, limits=LimitsConfig(max_upload_bytes=1000))
    return app


async def test_a_third_upload_is_told_to_come_back_and_holds_no_place() -> None:
    retriever, places = Retriever(), Places()
    transport = httpx.ASGITransport(desk(retriever, places))
    async with httpx.AsyncClient(transport=transport, base_url="http://here") as http:
        under_way = [asyncio.create_task(http.post(DOCUMENTS, json=BODY)) for _ in range(2)]
        for _ in under_way:
            await retriever.begun.get()
        third = await asyncio.wait_for(http.post(DOCUMENTS, json=BODY), 20)
        assert (third.status_code, third.headers["retry-after"]) == (429, "5")
        assert third.json()["error"]["code"] == "overloaded"
        assert places.taken == 2
        retriever.goes_on.set()
        assert [response.status_code for response in await asyncio.gather(*under_way)] == [200] * 2
        assert (await http.post(DOCUMENTS, json=BODY)).status_code == 200


async def test_json_that_is_uploaded_is_passed_on_as_it_arrives() -> None:
    seen: list[tuple[int, bool]] = []
    parts = [b'{"documents": ', b"[]}"]
    left = list(parts)

    async def app(_scope: Scope, receive: Any, _send: object) -> None:  # noqa: ANN401
        more = True
        while more:
            message = await receive()
            more = message["more_body"]
            seen.append((len(message["body"]), more))

    async def receive() -> Message:
        return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}

    async def send(_message: Message) -> None:
        raise AssertionError("nothing is answered at the door")

    scope = {
        "type": "http",
        "method": "POST",
        "path": DOCUMENTS,
        "headers": [(b"content-type", b"application/json")],
    }
    await Doorway(app, LimitsConfig())(scope, receive, send)
    assert seen == [(len(parts[0]), True), (len(parts[1]), False)]


async def test_json_without_a_declared_length_is_bounded_as_well() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(50):
            yield json.dumps(BODY).encode()

    transport = httpx.ASGITransport(desk(Retriever(), Places()))
    async with httpx.AsyncClient(transport=transport, base_url="http://here") as http:
        headers = {"content-type": "application/json"}
        refused = await http.post(DOCUMENTS, content=chunks(), headers=headers)
    assert (refused.status_code, refused.json()["error"]["param"]) == (413, "files")
