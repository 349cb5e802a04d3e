"""A first stage in service: what needs the vector gets it, and no request waits for that."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from first_stages import SURE, with_first
from gate_folders import BY, EXPERTS, gate, saved
from logged_rows import row
from test_router_live import counted
from test_router_routing import word_vectors

from router.counts import Counts
from router.decision import Decision
from router.features import FEATURE_VERSION, featurize
from router.gate import Gate
from router.live import LiveRouter
from router.logged_decision import Read
from router.overrides import Overrides
from router.replay import Unplayable, reads_nothing, replay
from router.router import Router
from router.surface import SURFACE_DIMENSIONS, surface
from router.traffic import Traffic
from router.traffic_record import TRAFFIC_FOLDER, read_records
from router.versions import Registry

TEXTS = [*SURE, "hola", "python contract", "zebra"]


class Counting:
    """An encoder that counts its texts by the thread that asks, and may be told to fail."""

    def __init__(self) -> None:
        self.texts: list[tuple[str, str]] = []
        self.fails = False

    def __call__(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        if self.fails:
            raise ZeroDivisionError("the encoder's own")
        self.texts += [(threading.current_thread().name, text) for text in texts]
        return word_vectors(texts)

    def read(self, thread: str = "") -> list[str]:
        """The texts since the start of the service, of one thread or of all."""
        texts = [text for name, text in self.texts if thread in name]
        return [text for text in texts if text != "ready?"]


def registry_with(folder: Path, *gates: Gate) -> Registry:
    """The first is version 0."""
    for number, made in enumerate(gates):
        made.save(folder / f"gate-{number}")
    registry = Registry(folder / "registry", folder / "gate-0")
    for number in range(1, len(gates)):
        registry.add(folder / f"gate-{number}", BY)
    return registry


@contextmanager
def live(registry: Registry, encoder: Counting, **settings: Any) -> Iterator[LiveRouter]:  # noqa: ANN401
    def build(gate: Gate) -> Router:
        return Router(gate, encoder, EXPERTS, "general")

    router = LiveRouter(registry, build, poll_s=0.02, **settings)
    try:
        yield router
    finally:
        router.close()


@pytest.fixture
def encoder() -> Counting:
    return Counting()


def said(text: str) -> list[tuple[str, str]]:
    return [("user", text)]


def asked(router: LiveRouter, texts: Sequence[str], **more: Any) -> list[Decision]:  # noqa: ANN401
    return [router.route(said(t), key=f"key {n}", **more) for n, t in enumerate(texts)]


def test_the_encoder_runs_for_what_is_not_settled_alone(tmp_path: Path, encoder: Counting) -> None:
    with live(registry_with(tmp_path, with_first(gate())), encoder, sampled=0) as router:
        found = asked(router, TEXTS)
        router.close()
        assert [one.stage for one in found] == ["first"] * 3 + ["gate"] * 3
        assert encoder.read() == TEXTS[3:]
        plain = Router(gate(), word_vectors, EXPERTS, "general")
        assert [one.chosen for one in found] == [plain.route(said(t)).chosen for t in TEXTS]
        assert counted(router, "decisions") == len(TEXTS)


def test_a_probe_is_read_and_tells_of_a_failing_encoder(tmp_path: Path, encoder: Counting) -> None:
    with live(registry_with(tmp_path, with_first(gate())), encoder) as router:
        assert router.route(said("python")).stage == "gate"
        encoder.fails = True
        assert router.route(said("python"), key="k").stage == "first"
        with pytest.raises(ZeroDivisionError):
            router.route(said("python"))


def test_a_log_keeps_the_surface_of_what_was_settled(tmp_path: Path, encoder: Counting) -> None:
    registry = registry_with(tmp_path, with_first(gate()))
    with live(registry, encoder, keep_features=True, sampled=0) as router:
        settled, whole = asked(router, ["python", "hola"])
        router.close()
    assert settled.features is not None and whole.features is not None
    np.testing.assert_array_equal(settled.features, surface("python").astype(np.float16)[None])
    expected = featurize(said("hola"), word_vectors).joined().astype(np.float16)
    np.testing.assert_array_equal(whole.features, expected)
    assert encoder.read() == ["hola"]


def test_while_there_is_exploration_all_that_may_be_explored_is_read(
    tmp_path: Path, encoder: Counting
) -> None:
    registry = registry_with(tmp_path, with_first(gate()))
    with live(registry, encoder, exploration=0.5, keep_features=True) as router:
        found = asked(router, TEXTS)
        assert {one.stage for one in found} == {"gate"}
        assert encoder.read() == TEXTS
        assert all(
            one.features is not None and one.features.shape[1] > SURFACE_DIMENSIONS for one in found
        )
        # Whoever bounds who answers is not explored.
        bound = router.route(said("python"), Overrides(experts=("code", "legal")), key="b")
        assert bound.stage == "first"


@pytest.mark.parametrize("other", [gate(3.0), with_first(gate(3.0), {"python": "legal"})])
def test_a_shadow_reads_afterwards_what_it_does_not_settle(
    tmp_path: Path, encoder: Counting, other: Gate
) -> None:
    registry = registry_with(tmp_path, with_first(gate()), other)
    registry.shadow("1", BY)
    with live(registry, encoder, sampled=0) as router:
        found = asked(router, TEXTS)
        router.close()
        own = [text for text in SURE if other.settle(surface(text)) is None]
        # In the thread of the comparison, and nothing twice.
        assert encoder.read("router-observer") == own
        assert sorted(encoder.read()) == sorted([*own, *TEXTS[3:]])
        shadow = Router(other, word_vectors, EXPERTS, "general")
        expected = [shadow.route(said(text)) for text in TEXTS]
        assert counted(router, "compared") == len(TEXTS)
        agreed = [a.chosen[0] == b.chosen[0] for a, b in zip(found, expected, strict=True)]
        assert counted(router, "same_lead") == sum(agreed)
        assert counted(router, "shadow_failures") == 0


def test_a_canary_is_compared_with_what_the_current_version_would_do(
    tmp_path: Path, encoder: Counting
) -> None:
    registry = registry_with(tmp_path, gate(), with_first(gate(3.0)))
    registry.canary("1", 1.0, BY)
    with live(registry, encoder, sampled=0) as router:
        found = asked(router, TEXTS)
        router.close()
        assert [one.stage for one in found] == ["first"] * 3 + ["gate"] * 3
        assert encoder.read("router-observer") == list(SURE)
        assert counted(router, "compared", role="canary") == len(TEXTS)


def test_an_encoder_that_fails_afterwards_is_counted_and_no_request_hears(
    tmp_path: Path, encoder: Counting
) -> None:
    registry = registry_with(tmp_path, with_first(gate()), gate(3.0))
    registry.shadow("1", BY)
    with live(registry, encoder) as router:
        encoder.fails = True
        assert [one.stage for one in asked(router, list(SURE))] == ["first"] * 3
        router.close()
        assert counted(router, "shadow_failures") == 3
        assert counted(router, "traffic_faults") == 3
    (record,) = read_records(registry.folder / TRAFFIC_FOLDER)
    assert (record.sample, sum(hour.requests for hour in record.hours)) == ([], 3)


def test_the_sample_holds_the_vectors_of_all_traffic(tmp_path: Path, encoder: Counting) -> None:
    registry = registry_with(tmp_path, with_first(gate()))
    with live(registry, encoder) as router:
        asked(router, TEXTS)
        router.close()
        assert sorted(encoder.read("router-traffic")) == sorted(SURE)
    (record,) = read_records(registry.folder / TRAFFIC_FOLDER)
    assert sum(hour.requests for hour in record.hours) == len(TEXTS)
    vectors = np.stack([sighting.vector for sighting in record.sample])
    np.testing.assert_array_equal(vectors, word_vectors(TEXTS).astype(np.float16))


def settled(mark: str) -> Decision:
    made = Router(with_first(gate()), reads_nothing, EXPERTS, "general").route(said("python"))
    return replace(made, reason=mark)


def test_only_what_stays_in_the_sample_is_read(tmp_path: Path) -> None:
    read: list[int] = []

    def reading(number: int) -> Callable[[], npt.NDArray[np.float32]]:
        def vector() -> npt.NDArray[np.float32]:
            read.append(number)
            return np.array([number, 1.0], dtype=np.float32)

        return vector

    traffic = Traffic(tmp_path, Counts(), rows=4, flush_s=3600.0)
    for number in range(200):
        traffic.add(settled(""), named=False, read=reading(number))
    assert traffic.record().sample == []
    traffic.close()
    kept = sorted(int(sighting.vector[0]) for sighting in traffic.record().sample)
    assert len(kept) == 4 and sorted(read) == kept
    (record,) = read_records(tmp_path)
    assert sorted(int(sighting.vector[0]) for sighting in record.sample) == kept


def test_a_settled_request_whose_text_is_gone_is_counted_and_not_sampled(tmp_path: Path) -> None:
    traffic = Traffic(tmp_path, Counts())
    traffic.add(settled(""), named=False)
    traffic.close()
    (hour,) = traffic.record().hours
    assert (hour.requests, hour.sample) == (1, [])


def surface_of(text: str, **changes: Any) -> Read:  # noqa: ANN401
    fields = {"version": FEATURE_VERSION, "encoder": "words", "dimensions": 0, "said": len(text)}
    return Read.of(surface(text).astype(np.float16)[None], **{**fields, **changes})


def test_what_was_settled_is_replayed_by_versions_that_settle_it() -> None:
    logged = row(1, 1.0, read=surface_of("python"))
    acting = Router(with_first(gate()), reads_nothing, EXPERTS, "general")
    assert replay(acting, logged) == ("code",)
    other = with_first(gate(), {"python": "legal"})
    assert replay(Router(other, reads_nothing, EXPERTS, "general"), logged) == ("legal",)
    for unsure in (gate(), with_first(gate(), {"contract": "legal"})):
        with pytest.raises(Unplayable, match="asks for a sentence vector"):
            replay(Router(unsure, reads_nothing, EXPERTS, "general"), logged)
    old = row(1, 1.0, read=surface_of("python", version="0"))
    with pytest.raises(Unplayable, match="another encoder or release"):
        replay(acting, old)


def test_a_promoted_first_stage_settles_without_a_restart(
    tmp_path: Path, encoder: Counting
) -> None:
    from gate_folders import STANDARDS
    from test_router_live import until

    registry = Registry(tmp_path / "registry", saved(tmp_path / "origin"))
    with_first(gate()).save(tmp_path / "new")
    registry.add(tmp_path / "new", BY)
    with live(registry, encoder) as router:
        assert router.route(said("python"), key="a").stage == "gate"
        registry.promote("1", BY, STANDARDS)
        assert until(lambda: router.version == with_first(gate()).version)
        assert router.route(said("python"), key="b").stage == "first"
        registry.rollback(BY)
        assert until(lambda: router.version == gate().version)
        assert router.route(said("python"), key="c").stage == "gate"
