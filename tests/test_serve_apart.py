"""Experts placed apart, deployed to a Ray cluster that runs already: scaling, cold start, death."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import yaml
from live_service import free_port
from prometheus_client.parser import text_string_to_metric_families

from orchestrator import AsyncClient, Client
from orchestrator.config import DEFAULT_FILE, Config
from orchestrator.errors import CollegiumError

pytestmark = [pytest.mark.cluster, pytest.mark.models, pytest.mark.timeout(900)]


@dataclass(frozen=True)
class Cluster:
    """A deployed application."""

    url: str

    def running(self) -> dict[str, int]:
        from ray import serve

        from orchestrator.app import APPLICATION

        deployments = serve.status().applications[APPLICATION].deployments
        return {
            name.removeprefix("Expert:"): found.replica_states.get("RUNNING", 0)
            for name, found in deployments.items()
            if name.startswith("Expert:")
        }

    def pid(self, expert: str) -> int:
        from ray import serve

        from orchestrator.app import APPLICATION

        handle = serve.get_deployment_handle(f"Expert:{expert}", APPLICATION)
        return int(handle.health.remote().result(timeout_s=120).pid)

    def engine(self, expert: str) -> dict[str, float]:
        """The metrics of an expert's engine, by name, from where Ray exports its own."""
        import ray

        port = ray.nodes()[0]["MetricsExportPort"]
        text = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=30).text
        prefix = "ray_collegium_engine_"
        found = [
            (sample.name.removeprefix(prefix), sample.value)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name.startswith(prefix) and sample.labels["deployment"] == f"Expert:{expert}"
        ]
        assert len(found) == len(dict(found)), "one replica, one value each"
        return dict(found)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    # Read by Ray when it is imported; its own default is ten seconds.
    os.environ["RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S"] = "1"
    os.environ["RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S"] = "1"
    import ray
    from ray import serve

    from orchestrator.app import APPLICATION, graph

    config = Config.check(_body())
    port = free_port()
    ray.init(
        include_dashboard=False,
        object_store_memory=256 * 2**20,
        log_to_driver=False,
        _node_ip_address="127.0.0.1",
        _system_config={"metrics_report_interval_ms": 1000},
    )
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        serve.run(graph(config), name=APPLICATION, route_prefix="/")
        yield Cluster(f"http://127.0.0.1:{port}")
    finally:
        serve.shutdown()
        ray.shutdown()


def _body() -> dict[str, object]:
    body: dict[str, object] = yaml.safe_load(Path(DEFAULT_FILE).read_text())
    body["placement"] = "apart"
    body["feedback"] = {"enabled": False}
    body["models"]["base"]["threads"] = 1  # type: ignore[index]
    experts: dict[str, dict[str, object]] = body["experts"]  # type: ignore[assignment]
    quick = {"target_ongoing_requests": 2, "upscale_delay_s": 1, "downscale_delay_s": 5}
    small = {"num_cpus": 0.1}
    for expert in experts.values():
        expert["deployment"] = {"resources": small}
    experts["code"]["deployment"] = {
        "resources": small,
        "autoscaling": {"min_replicas": 1, "max_replicas": 2, **quick},
    }
    experts["legal"]["deployment"] = {
        "resources": small,
        "autoscaling": {"min_replicas": 0, "max_replicas": 1, **quick},
    }
    body["retrieval"] = {"grounding": "off", "deployment": {"resources": small}}
    body["router"] = {"deployment": {"resources": small}}
    body["server"] = {"deployment": {"resources": small}}
    return body


def _until(seconds: float, condition: object) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if callable(condition) and condition():
            return True
        time.sleep(0.5)
    return False


def test_the_engines_metrics_count_what_was_asked(cluster: Cluster) -> None:
    assert _until(30, lambda: "finished_requests" in cluster.engine("code"))
    before = cluster.engine("code")
    assert (before["adapters_resident"], before["running_requests"]) == (3, 0)
    with Client(base_url=cluster.url, timeout=300) as client:
        answers = [
            client.chat(prompt, model="code", max_tokens=6)
            for prompt in ("Write a loop in Rust.", "What is a list in Python?", "Sort it.")
        ]
    assert {answer.finish_reason for answer in answers} == {"length"}
    usages = [answer.usage for answer in answers]
    # The last token of an answer is written and never read.
    read = sum(u.prompt_tokens + u.completion_tokens - 1 for u in usages if u)

    def counted() -> dict[str, float]:
        now = cluster.engine("code")
        counts = {name: now[name] - value for name, value in before.items()}
        wrong = counts["guessed_tokens"] - counts["guessed_right_tokens"]
        return {
            "finished": counts["finished_requests"],
            "hits": counts["adapter_hits"],
            "read": counts["step_tokens"] + counts["cache_reused_tokens"] - wrong,
            "at work": now["running_requests"] + now["waiting_requests"],
            "resident": now["adapters_resident"],
        }

    expected = {"finished": 3, "hits": 3, "read": read, "at work": 0, "resident": 3}
    _until(20, lambda: counted() == expected)
    assert counted() == expected
    now = cluster.engine("code")
    assert 0 < now["step_rows"] - before["step_rows"] <= now["step_tokens"] - before["step_tokens"]
    assert now["step_seconds"] > before["step_seconds"]


def test_an_expert_that_scaled_to_zero_starts_on_its_first_request(cluster: Cluster) -> None:
    assert _until(60, lambda: cluster.running()["legal"] == 0)
    with Client(base_url=cluster.url, timeout=300) as client:
        answer = client.chat("What is a contract?", model="legal", max_tokens=4)
    assert answer.routing is not None
    assert [expert.name for expert in answer.routing.experts] == ["legal"]
    assert not answer.routing.fallback
    assert _until(60, lambda: cluster.running()["legal"] == 1)
    assert _until(120, lambda: cluster.running()["legal"] == 0)


async def test_the_flooded_expert_alone_scales_up_and_back(cluster: Cluster) -> None:
    assert _until(60, lambda: cluster.running()["legal"] == 0)
    before = cluster.running()
    assert before == {"general": 1, "code": 1, "legal": 0, "multilingual": 1}
    most = dict(before)
    seen = asyncio.Event()
    async with AsyncClient(base_url=cluster.url, timeout=400) as client:
        workers = [asyncio.create_task(_ask_until(client, seen)) for _ in range(8)]
        deadline = time.monotonic() + 240
        while most["code"] < 2 and time.monotonic() < deadline:
            now = await asyncio.to_thread(cluster.running)
            most = {name: max(count, now[name]) for name, count in most.items()}
            await asyncio.sleep(0.5)
        seen.set()
        fallbacks = await asyncio.gather(*workers)
    assert most == {**before, "code": 2}
    assert not any(fallbacks)
    assert await asyncio.to_thread(_until, 120, lambda: cluster.running() == before)


async def _ask_until(client: AsyncClient, seen: asyncio.Event) -> bool:
    """Keep one request open all the time; tells whether any was answered by another expert."""
    fallback = False
    while not seen.is_set():
        answer = await client.chat("Write a sort.", model="code", max_tokens=24)
        fallback = fallback or answer.routing is None or answer.routing.fallback
    return fallback


async def test_a_killed_expert_is_replaced_and_the_generalist_stands_in(
    cluster: Cluster,
) -> None:
    pid = await asyncio.to_thread(cluster.pid, "multilingual")
    async with AsyncClient(base_url=cluster.url, timeout=120, max_retries=0) as client:
        broken = await _kill_in_mid_stream(client, pid)
        assert broken.code == "expert_unavailable"
        killed = time.monotonic()
        answer = await client.chat("Wie geht es dir?", model="multilingual", max_tokens=2)
        waited = time.monotonic() - killed
        assert answer.routing is not None
        assert waited < 5
        assert answer.routing.fallback == (answer.routing.experts[0].name == "general")
        names = []
        while time.monotonic() - killed < 60 and names != ["multilingual"]:
            answer = await client.chat("Wie geht es dir?", model="multilingual", max_tokens=2)
            names = [expert.name for expert in answer.routing.experts] if answer.routing else []
            await asyncio.sleep(1)
        assert names == ["multilingual"]
    assert await asyncio.to_thread(cluster.pid, "multilingual") != pid


async def _kill_in_mid_stream(client: AsyncClient, pid: int) -> CollegiumError:
    with pytest.raises(CollegiumError) as broken:
        async with client.stream(
            "Erzähle eine lange Geschichte.", model="multilingual", max_tokens=400
        ) as stream:
            async for _event in stream:
                if _alive(pid):
                    os.kill(pid, signal.SIGKILL)
    return broken.value


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_health_and_readiness_hold_after_all_of_it(cluster: Cluster) -> None:
    assert httpx.get(f"{cluster.url}/readyz", timeout=30).json() == {
        "status": "ready",
        "faults": [],
    }
