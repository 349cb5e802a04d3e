"""Admission: who is let in, what is counted, and what ends when a caller leaves."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from in_process import REVERSED, Endless, Service, serving

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
