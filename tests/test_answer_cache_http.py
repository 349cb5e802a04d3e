"""The answer cache over HTTP: headers, metrics, removal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from in_process import REVERSED, Service, configuration, serving
from kept_answers import cached

from orchestrator import AsyncClient, Client, NotFound
from orchestrator.gateway import Gateway
from orchestrator.identity import READERS, Principal

pytest_plugins = ["kept_fixtures"]
pytestmark = pytest.mark.models

CHAT = "/v1/chat/completions"


@pytest.fixture
def http(kept: Service) -> Iterator[httpx.Client]:
    with serving(kept.app()) as url, httpx.Client(base_url=url, timeout=30) as client:
        yield client


def sent(http: httpx.Client, stream: bool = False, **headers: str) -> httpx.Response:
    body = {"model": "code", "messages": [{"role": "user", "content": REVERSED}], "stream": stream}
    return http.post(CHAT, json=body, headers=headers)


@pytest.mark.parametrize("stream", [False, True])
def test_a_header_tells_what_the_cache_found(http: httpx.Client, stream: bool) -> None:
    found = [sent(http, stream=stream).headers["x-collegium-cache"] for _ in range(2)]
    assert found == ["miss", "exact"]
    assert sent(http, stream=not stream).headers["x-collegium-cache"] == "exact"


def test_cache_control_is_obeyed(http: httpx.Client) -> None:
    sent(http)
    refreshed = sent(http, **{"cache-control": "max-age=0, No-Cache"})
    assert refreshed.headers["x-collegium-cache"] == "miss"
    assert "x-collegium-cache" not in sent(http, **{"cache-control": "no-store"}).headers


def test_a_tenant_removes_its_answers_and_metrics_tell_of_them(http: httpx.Client) -> None:
    sent(http), sent(http)
    metrics = http.get("/metrics").text
    assert 'collegium_cache_lookups_total{kind="exact"} 1.0' in metrics
    assert "collegium_cache_entries 1.0" in metrics
    assert http.delete("/v1/cache").json() == {"object": "cache.deleted", "answers": 1}
    assert sent(http).headers["x-collegium-cache"] == "miss"


async def test_the_sdk_removes_them_too(http: httpx.Client) -> None:
    url = str(http.base_url)
    with Client(url) as client:
        sent(http)
        assert (client.clear_cache(), client.clear_cache()) == (1, 0)
    sent(http)
    async with AsyncClient(url) as client:
        assert await client.clear_cache() == 1


class Foreign(Gateway):
    def _principal(self, _http: object) -> Principal:
        return READERS


def test_who_may_change_nothing_removes_nothing(kept: Service) -> None:
    gateway = Foreign(kept.config, cached(kept), kept.telemetry)
    with serving(gateway.app()) as url:
        assert httpx.delete(f"{url}/v1/cache").status_code == 403


def test_a_service_without_a_cache_says_so(encoder_dir: Path, tmp_path: Path) -> None:
    service = Service.open(configuration(encoder_dir, tmp_path))
    with serving(service.app()) as url:
        response = httpx.delete(f"{url}/v1/cache")
        with Client(url) as client, pytest.raises(NotFound, match="keeps no answers"):
            client.clear_cache()
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "cache_disabled"
