"""Streamed chat completions over HTTP, with the moments at which text arrives."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from benchmarks.asking import Heard

STREAMED = {"stream": True, "stream_options": {"include_usage": True}, "temperature": 0}
_TIMEOUT = 300.0


@dataclass
class Reply(Heard):
    """What was heard, with the number of tokens that the server read."""

    prompt_tokens: int = 0


def chat_all(url: str, bodies: Sequence[Mapping[str, Any]]) -> list[Reply]:
    """All answers of requests that are sent at once."""

    async def run() -> list[Reply]:
        # No proxy of the environment: the servers are on this machine.
        async with httpx.AsyncClient(timeout=_TIMEOUT, trust_env=False) as http:
            return list(await asyncio.gather(*(_chat(http, url, body) for body in bodies)))

    return asyncio.run(run())


async def _chat(http: httpx.AsyncClient, url: str, body: Mapping[str, Any]) -> Reply:
    reply = Reply(time.perf_counter())
    async with http.stream("POST", f"{url}/v1/chat/completions", json={**body, **STREAMED}) as got:
        if got.status_code != 200:
            raise RuntimeError(f"{url} answers {got.status_code}: {(await got.aread()).decode()}")
        async for line in got.aiter_lines():
            if line.startswith("data: {"):
                _take(reply, json.loads(line.removeprefix("data: ")), url)
    return reply


def _take(reply: Reply, event: Mapping[str, Any], url: str) -> None:
    if "error" in event:
        raise RuntimeError(f"{url} failed in a stream: {event['error']}")
    for choice in event["choices"]:
        text = choice["delta"].get("content")
        if text:
            reply.at.append(time.perf_counter())
            reply.text += text
    if event.get("usage"):
        reply.tokens = event["usage"]["completion_tokens"]
        reply.prompt_tokens = event["usage"]["prompt_tokens"]
