"""Admission: who is let in, what is counted, and what ends when a caller leaves."""

from __future__ import annotations

import asyncio
import re
import socket
import time
from collections.abc import AsyncGenerator

import httpx
import pytest
from in_process import REVERSED, Endless, Service, serving

from experts.echo import EchoExpert
from experts.generation import Chunk, Generation

pytest_plugins = ["service_fixtures"]
pytestmark = pytest.mark.models

HELLO = [{"role": "user", "content": "Hello there, how are you?"}]
CHAT = "/v1/chat/completions"


def count(text: str, name: str, *labels: str) -> float:
    lines = (line for line in text.splitlines() if line.startswith(f"collegium_{name}"))
    return sum(float(line.split()[-1]) for line in lines if all(f'"{v}"' in line for v in labels))


def test_metrics_change_by_what_was_asked(service: Service) -> None:
    with httpx.Client(base_url=service.url, timeout=30) as http:
        before = http.get("/metrics").text
        http.post(CHAT, json={"messages": HELLO, "model": "code+legal"})
        http.post(CHAT, json={"messages": HELLO, "model": "broken"})
        http.post("/v1/embeddings", json={"input": "x"})
        after = http.get("/metrics").text
    names = {line.split("{")[0].split()[0] for line in after.splitlines() if line[0] != "#"}
    assert names
    assert all(name.startswith("collegium_") for name in names)

    def grown(name: str, *labels: str) -> float:
        return count(after, name, *labels) - count(before, name, *labels)

    assert grown("requests_total", CHAT, "200") == 2
    assert grown("requests_total", "/v1/embeddings", "200") == 1
    assert grown("answers_total", "code") == grown("answers_total", "legal") == 1
    assert grown("answers_total", "general") == grown("fallbacks_total") == 1
    assert grown("decisions_total", "mixture") == grown("decisions_total", "single") == 1
    assert grown("tokens_total", "completion") == 2 * len(HELLO[0]["content"].split())
    assert grown("request_seconds_count", CHAT) == grown("first_token_seconds_count") == 2
    assert count(after, "open_requests") == 0


def test_requests_refused_at_the_door_are_counted_once(service: Service) -> None:
    with httpx.Client(base_url=service.url, timeout=30) as http:
        before = http.get("/metrics").text
        http.post(CHAT, json={"messages": HELLO, "max_tokens": -1})
        http.post(CHAT, json={"messages": HELLO, "model": "nobody"})
        http.post(CHAT, content=b"{}", headers={"content-type": "text/plain"})
        http.post(CHAT, content=b"x" * 2_000_000, headers={"content-type": "application/json"})
        http.get(CHAT)
        http.post("/v1/route", json={"messages": []})
        http.post("/v1/embeddings", json={"input": "x", "model": "gpt"})
        http.post("/v1/embeddings", json={"input": "x", "dimensions": 7})
        http.get("/v1/models")
        http.get("/v1/models/legal")
        for name in ("nobody", "no/body", "%2e%2e"):
            http.get(f"/v1/models/{name}")
        http.get("/v1/a")
        http.get("/v1/b?c=d")
        http.get("/v2/chat")
        after = http.get("/metrics").text
    grown = {key: n - requests(before).get(key, 0) for key, n in requests(after).items()}
    assert {key: n for key, n in grown.items() if n} == {
        (CHAT, "400"): 1,
        (CHAT, "404"): 1,
        (CHAT, "405"): 1,
        (CHAT, "413"): 1,
        (CHAT, "415"): 1,
        ("/v1/route", "400"): 1,
        ("/v1/embeddings", "404"): 1,
        ("/v1/embeddings", "400"): 1,
        ("/v1/models", "200"): 1,
        ("/v1/models/{name}", "200"): 1,
        ("/v1/models/{name}", "404"): 2,
        ("other", "404"): 3,
    }


def requests(text: str) -> dict[tuple[str, str], float]:
    """The counter of requests by path and status."""
    pattern = r'^collegium_requests_total\{path="([^"]*)",status="([^"]*)"\} (\S+)$'
    found = re.findall(pattern, text, re.MULTILINE)
    return {(path, status): float(number) for path, status, number in found}


def test_a_request_that_breaks_off_in_its_body_is_counted_as_gone(service: Service) -> None:
    before = requests(httpx.get(f"{service.url}/metrics").text)
    host, port = service.url.removeprefix("http://").split(":")
    head = (
        f"POST {CHAT} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
        "content-length: 100\r\n\r\n{"
    )
    with socket.create_connection((host, int(port))) as raw:
        raw.sendall(head.encode())
    deadline = time.monotonic() + 5
    grown = 0.0
    while not grown and time.monotonic() < deadline:
        after = requests(httpx.get(f"{service.url}/metrics").text)
        grown = after.get((CHAT, "499"), 0) - before.get((CHAT, "499"), 0)
    assert grown == 1


def test_a_fault_of_the_service_is_counted(service: Service) -> None:
    class Faulty(EchoExpert):
        async def generate(self, request: Generation) -> AsyncGenerator[Chunk, None]:
            raise ZeroDivisionError(request.id)
            yield Chunk("")

    with serving(service.app(code=Faulty("code"))) as url:
        body = {"messages": HELLO, "model": "code"}
        assert httpx.post(f"{url}{CHAT}", json=body).status_code == 500
        assert requests(httpx.get(f"{url}/metrics").text) == {(CHAT, "500"): 1}


def test_more_open_requests_than_allowed_are_told_to_come_back(service: Service) -> None:
    config = service.config.model_dump(exclude={"limits"}) | {"limits": {"max_open_requests": 1}}
    narrow = Service(
        type(service.config).model_validate(config),
        service.router,
        service.retriever,
        {**service.ports, "endless": Endless()},
        service.telemetry,
    )
    body = {"messages": HELLO, "model": "endless", "stream": True}
    with serving(narrow.app()) as url, httpx.Client(base_url=url, timeout=10) as client:
        with client.stream("POST", CHAT, json=body) as response:
            lines = response.iter_lines()
            next(lines)
            other = httpx.post(f"{url}{CHAT}", json={"messages": HELLO, "model": "code"})
            assert other.status_code == 429
            assert other.json()["error"]["type"] == "rate_limit_error"
            assert int(other.headers["retry-after"]) >= 1


async def test_thirty_grounded_answers_at_once_all_come(service: Service) -> None:
    asked = [f"{REVERSED} Question {n}!" for n in range(30)]
    async with httpx.AsyncClient(base_url=service.url, timeout=60) as client:
        posts = (
            client.post(CHAT, json={"model": "code", "messages": [{"role": "user", "content": q}]})
            for q in asked
        )
        answers = [response.json() for response in await asyncio.gather(*posts)]
    for prompt, answer in zip(asked, answers, strict=True):
        message = answer["choices"][0]["message"]
        assert message["content"] == prompt.replace("sequence.", "sequence. [1]")
        assert len(message["annotations"]) == 1


@pytest.mark.parametrize(
    ("name", "stream"), [("endless", True), ("endless", False), ("silent", True)]
)
def test_a_client_that_goes_away_frees_its_expert(
    service: Service, name: str, stream: bool
) -> None:
    expert = Endless(silent=name == "silent")
    with serving(service.app(**{name: expert})) as url:
        with pytest.raises(httpx.ReadTimeout), httpx.Client(base_url=url, timeout=1.5) as client:
            body = {"messages": HELLO, "model": name, "stream": stream}
            with client.stream("POST", CHAT, json=body) as response:
                assert next(response.iter_lines()).startswith("data: ")
                raise httpx.ReadTimeout("enough")
        assert expert.begun.is_set()
        assert expert.closed.wait(5)
        assert count(httpx.get(f"{url}/metrics").text, "requests_total", CHAT, "499") == 1
