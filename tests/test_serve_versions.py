"""Versions of the router change under live traffic on a Ray cluster; no request fails."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx
import pytest
from live_service import free_port
from prometheus_client.parser import text_string_to_metric_families

import router
from orchestrator.config import Config
from orchestrator.registry import open_registry
from router.comparison_log import LOG_FOLDER, read_pairs
from router.gate import WEIGHTS_FILE, Gate
from router.standards import Standards
from router.version import Signature
from router.versions import Registry

pytestmark = [pytest.mark.cluster, pytest.mark.models, pytest.mark.timeout(600)]

BY = Signature("tester")
EMBEDDED = Path(router.__file__).parent / "weights"
PROMPTS = ("Write a loop in Rust.", "Hi there! How are you?", "Is this contract valid?")


@dataclass
class Traffic:
    """Requests that never stop, and what came back: (time, status, router version) each."""

    url: str
    answers: list[tuple[float, int, str]] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def ask(self) -> None:
        with httpx.Client(base_url=self.url, timeout=60) as client:
            turn = 0
            while not self.over.is_set():
                messages = [{"role": "user", "content": PROMPTS[turn % len(PROMPTS)]}]
                began = time.monotonic()
                response = client.post("/v1/route", json={"messages": messages})
                version = response.json().get("router_version", response.text)
                self.answers.append((began, response.status_code, version))
                turn += 1

    def settled(self, version: str, last: int = 60) -> bool:
        """Whether the latest answers all bear this version."""
        latest = self.answers[-last:]
        return len(latest) == last and {found for _, _, found in latest} == {version}

    def versions(self, since: float) -> Counter[str]:
        return Counter(version for began, _, version in list(self.answers) if began >= since)


@dataclass(frozen=True)
class Cluster:
    """A deployed application with two replicas of the Router, and its registry."""

    url: str
    registry: Registry

    def counted(self, name: str) -> float:
        import ray

        port = ray.nodes()[0]["MetricsExportPort"]
        text = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=30).text
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == f"ray_collegium_router_{name}"
        )


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    import ray
    from ray import serve

    from orchestrator.app import APPLICATION, graph

    versions, port = tmp_path_factory.mktemp("versions"), free_port()
    config = _config(versions)
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
        yield Cluster(f"http://127.0.0.1:{port}", open_registry(config))
    finally:
        serve.shutdown()
        ray.shutdown()


def _config(versions: Path) -> Config:
    small = {"resources": {"num_cpus": 0.1}}
    two = {"autoscaling": {"min_replicas": 2, "max_replicas": 2}, **small}
    # Nobody answers there: a decision needs no expert.
    remote = {"remote": {"base_url": "http://127.0.0.1:9/v1", "model": "none"}, "deployment": small}
    return Config.check(
        {
            "models": {"base": {"source": "unused"}},
            "experts": {"general": remote, "code": remote},
            "router": {"versions": str(versions), "deployment": two},
            "feedback": {"enabled": False},
            "retrieval": {"deployment": small},
            "server": {"deployment": small},
        }
    )


@pytest.fixture
def traffic(cluster: Cluster) -> Iterator[Traffic]:
    """Four callers at a time; every one of their requests must have been answered."""
    found = Traffic(cluster.url)
    threads = [threading.Thread(target=found.ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield found
    finally:
        found.over.set()
        for thread in threads:
            thread.join()
    assert Counter(status for _, status, _ in found.answers).keys() == {200}


def _until(condition: Callable[[], bool], seconds: float = 60.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.2)
    return False


def _added(cluster: Cluster, folder: Path, shift: float) -> tuple[str, str]:
    """Name and hash of a new version: the embedded gate with another bias."""
    gate = Gate.load(EMBEDDED)
    bias = gate.bias + gate.bias.dtype.type(shift)
    replace(gate, bias=bias, metadata={}).save(folder / f"gate-{shift}")
    version = cluster.registry.add(folder / f"gate-{shift}", BY)
    return version.name, version.hash


def test_every_replica_follows_promotion_and_rollback_without_a_failed_request(
    cluster: Cluster, traffic: Traffic, tmp_path: Path
) -> None:
    first = Gate.load(EMBEDDED).version
    name, new = _added(cluster, tmp_path, 0.25)
    assert _until(lambda: traffic.settled(first))
    for change, version in (
        (lambda: cluster.registry.promote(name, BY, Standards()), new),
        (lambda: cluster.registry.rollback(BY), first),
        (lambda: cluster.registry.rollback(BY), new),
    ):
        change()
        assert _until(lambda version=version: traffic.settled(version))  # type: ignore[misc]
        settled = time.monotonic()
        assert _until(lambda since=settled: traffic.versions(since).total() > 100)  # type: ignore[misc]
        # Nobody goes back: both replicas are there.
        assert set(traffic.versions(settled)) == {version}
    assert set(traffic.versions(0.0)) == {first, new}
    assert cluster.counted("version_faults") == 0


def test_a_broken_version_is_not_taken_by_any_replica(
    cluster: Cluster, traffic: Traffic, tmp_path: Path
) -> None:
    before = cluster.registry.version(cluster.registry.lineup().current).hash
    name, _ = _added(cluster, tmp_path, 0.5)
    assert _until(lambda: traffic.settled(before))
    promoted = time.monotonic()
    weights = cluster.registry.folder / name / WEIGHTS_FILE
    whole = weights.read_bytes()
    # It breaks in the moment between the command's own look at it and the replicas'.
    os.rename(weights, weights.with_suffix(".gone"))
    _lineup(cluster.registry, name)
    assert _until(lambda: cluster.counted("version_faults") >= 2)
    assert _until(lambda: traffic.versions(promoted).total() > 100)
    assert set(traffic.versions(promoted)) == {before}
    weights.write_bytes(whole)
    current = cluster.registry.lineup().previous
    assert current is not None
    cluster.registry.rollback(BY)
    assert _until(lambda: traffic.settled(cluster.registry.version(current).hash))


def _lineup(registry: Registry, name: str) -> None:
    """What a promotion writes."""
    from router.lineup import write_lineup

    lineup = registry.lineup()
    write_lineup(registry.folder, replace(lineup, current=name, previous=lineup.current))


def test_a_shadow_watches_and_a_canary_takes_its_share(
    cluster: Cluster, traffic: Traffic, tmp_path: Path
) -> None:
    current = cluster.registry.version(cluster.registry.lineup().current).hash
    watching, shadow = _added(cluster, tmp_path, 0.75)
    trying, canary = _added(cluster, tmp_path, 1.0)
    cluster.registry.shadow(watching, BY)
    cluster.registry.canary(trying, 0.5, BY)
    assert _until(lambda: canary in traffic.versions(0.0))
    assert _until(lambda: traffic.versions(0.0)[canary] >= 60)
    time_of_canary = next(began for began, _, version in traffic.answers if version == canary)
    seen = traffic.versions(time_of_canary)
    assert set(seen) == {current, canary}
    assert _until(lambda: cluster.counted("compared") >= 60)
    pairs = list(read_pairs(cluster.registry.folder / LOG_FOLDER))
    assert {(p.role, p.other) for p in pairs} == {("shadow", shadow), ("canary", canary)}
    # One file of each replica.
    assert len(list((cluster.registry.folder / LOG_FOLDER).glob("*.jsonl"))) == 2
    assert cluster.counted("shadow_failures") == cluster.counted("log_faults") == 0
