"""The router of a running service: it follows versions, watches shadows, and drops no request."""

from __future__ import annotations

import gc
import json
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from gate_folders import BY, EXPERTS, STANDARDS, gate, registry_in, saved, tree
from test_router_routing import word_vectors

from router.cast import position
from router.comparison import divergence
from router.comparison_log import LOG_FOLDER, read_pairs
from router.decision import Decision
from router.features import ConversationError, Features
from router.gate import WEIGHTS_FILE, Gate
from router.lineup import LINEUP_FILE, VersionError
from router.live import LiveRouter
from router.observer import WAITING
from router.overrides import Overrides
from router.router import NO_OVERRIDES, Router
from router.situation import CALM, Situation
from router.versions import Registry
from tests.routing_data import empty_gate

TEXTS = ["python", "contract", "hola", "python contract", "banana", "hola python", "code python"]


def build(gate: Gate) -> Router:
    return Router(gate, word_vectors, EXPERTS, "general")


@contextmanager
def live(
    registry: Registry, make: Callable[[Gate], Router] = build, retry_s: float = 30.0
) -> Iterator[LiveRouter]:
    router = LiveRouter(registry, make, poll_s=0.02, retry_s=retry_s)
    try:
        yield router
    finally:
        router.close()


def until(condition: Callable[[], bool], seconds: float = 20.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def counted(router: LiveRouter, name: str, **tags: str) -> float:
    """The sum of a counter over all tags that are not given."""
    return sum(
        count.value
        for count in router.counts()
        if count.name == name and tags.items() <= count.tags.items()
    )


def said(text: str) -> list[tuple[str, str]]:
    return [("user", text)]


def test_a_promotion_is_followed_without_a_restart(tmp_path: Path) -> None:
    registry = registry_in(tmp_path, 9.0)
    with live(registry) as router:
        assert router.route(said("banana"), key="a").router_version == gate().version
        registry.promote("1", BY, STANDARDS)
        assert until(lambda: router.version == gate(9.0).version)
        decision = router.route(said("banana"), key="b")
        alone = build(gate(9.0)).route(said("banana"))
        assert decision == alone
        assert decision.chosen != build(gate()).route(said("banana")).chosen
        assert counted(router, "serving", version=gate(9.0).version) == 1.0
        registry.rollback(BY)
        assert until(lambda: router.version == gate().version)
        serving = {(c.tags["version"], c.value) for c in router.counts() if c.name == "serving"}
        assert serving == {(gate().version, 1.0), (gate(9.0).version, 0.0)}


class Halting:
    """An encoder that stops before the text `halt` until it is let go."""

    def __init__(self) -> None:
        self.begun, self.go = threading.Event(), threading.Event()
        self.texts: list[str] = []

    def __call__(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        self.texts += texts
        if "halt" in texts:
            self.begun.set()
            assert self.go.wait(30)
        return word_vectors(texts)


def test_a_request_ends_with_the_version_that_it_began_with(tmp_path: Path) -> None:
    registry, encoder = registry_in(tmp_path, 9.0), Halting()
    found: list[Decision] = []
    with live(registry, lambda gate: Router(gate, encoder, EXPERTS, "general")) as router:
        request = threading.Thread(target=lambda: found.append(router.route(said("halt"))))
        request.start()
        assert encoder.begun.wait(10)
        registry.promote("1", BY, STANDARDS)
        assert until(lambda: router.version == gate(9.0).version)
        encoder.go.set()
        request.join()
        assert found == [build(gate()).route(said("halt"))]
        assert router.route(said("halt")) == build(gate(9.0)).route(said("halt"))


def test_no_decision_mixes_two_versions_while_they_change(tmp_path: Path) -> None:
    registry = registry_in(tmp_path, 3.0)
    expected = {
        (made.version, text): made.route(said(text))
        for made in (build(gate()), build(gate(3.0)))
        for text in TEXTS
    }
    over, wrong, seen = threading.Event(), [], Counter[str]()

    def ask() -> None:
        turn = 0
        while not over.is_set():
            text = TEXTS[turn % len(TEXTS)]
            decision = router.route(said(text), key=f"key {turn}")
            seen[decision.router_version] += 1
            if decision != expected[decision.router_version, text]:
                wrong.append(decision)
            turn += 1

    with live(registry) as router:
        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for name in ("1", "0", "1", "0", "1"):
            registry.promote(name, BY, STANDARDS)
            wanted = registry.version(name).hash
            assert until(lambda wanted=wanted: router.version == wanted)  # type: ignore[misc]
        over.set()
        for thread in threads:
            thread.join()
    assert wrong == []
    assert set(seen) == {gate().version, gate(3.0).version}


def forced(registry: Registry, **roles: object) -> None:
    """Write a lineup that no command would have written."""
    path = registry.folder / LINEUP_FILE
    body = json.loads(path.read_text()) | roles
    path.with_suffix(".new").write_text(json.dumps(body))
    path.with_suffix(".new").replace(path)


def test_a_broken_version_replaces_nothing_until_it_is_whole(tmp_path: Path) -> None:
    registry = registry_in(tmp_path, 3.0, 9.0)
    registry.promote("1", BY, STANDARDS)
    weights = registry.folder / "2" / WEIGHTS_FILE
    whole = weights.read_bytes()
    with live(registry, retry_s=0.05) as router:
        weights.write_bytes(whole[:100])
        forced(registry, current="2", previous="0")
        assert until(lambda: counted(router, "version_faults") >= 2)
        assert router.version == gate(3.0).version
        assert router.route(said("banana"), key="x").router_version == gate(3.0).version
        weights.write_bytes(whole)
        assert until(lambda: router.version == gate(9.0).version)


@pytest.mark.parametrize("text", ["{", '{"format": 1}', ""])
def test_a_broken_lineup_changes_nothing(tmp_path: Path, text: str) -> None:
    registry = registry_in(tmp_path, 9.0)
    registry.promote("1", BY, STANDARDS)
    with live(registry) as router:
        (registry.folder / LINEUP_FILE).write_text(text)
        assert until(lambda: counted(router, "version_faults") >= 1)
        assert router.version == gate(9.0).version


def test_a_registry_that_goes_away_changes_nothing(tmp_path: Path) -> None:
    registry = registry_in(tmp_path, 9.0)
    registry.promote("1", BY, STANDARDS)
    with live(registry) as router:
        shutil.rmtree(registry.folder)
        assert until(lambda: counted(router, "version_faults") >= 1)
        assert router.route(said("banana"), key="x").router_version == gate(9.0).version


def test_a_gate_for_another_encoder_is_tried_and_not_taken(tmp_path: Path) -> None:
    registry = registry_in(tmp_path)
    empty_gate(("code", "general"), 100, "small").save(tmp_path / "small")
    registry.add(tmp_path / "small", BY)
    registry.promote("1", BY, STANDARDS, force=True)
    with live(registry) as router:
        assert router.version == gate().version
        assert counted(router, "version_faults") >= 1


def test_a_start_with_a_broken_version_takes_the_one_before(tmp_path: Path) -> None:
    registry = registry_in(tmp_path, 1.0, 2.0)
    registry.promote("1", BY, STANDARDS)
    registry.promote("2", BY, STANDARDS)
    shutil.rmtree(registry.folder / "2")
    with live(registry) as router:
        assert router.version == gate(1.0).version
    shutil.rmtree(registry.folder / "1")
    with live(registry) as router:
        assert router.version == gate().version
    (registry.folder / LINEUP_FILE).write_text("{")
    with live(registry) as router:
        assert router.version == gate().version
    shutil.rmtree(tmp_path / "origin")
    with pytest.raises(VersionError, match=r"gate\.json"):
        LiveRouter(registry, build)


def test_a_shadow_is_compared_on_every_request_and_never_acts(tmp_path: Path) -> None:
    registry, encoder = registry_in(tmp_path, 9.0), Halting()
    registry.shadow("1", BY)
    one, other = build(gate()), build(gate(9.0))
    with live(registry, lambda gate: Router(gate, encoder, EXPERTS, "general")) as router:
        at_start = len(encoder.texts)
        found = [router.route(said(text), key=f"{n}") for n, text in enumerate(TEXTS * 3)]
        router.close()
        # The shadow read no text of its own.
        assert len(encoder.texts) - at_start == len(found)
        assert found == [one.route(said(text)) for text in TEXTS * 3]
        pairs = [(one.route(said(t)), other.route(said(t))) for t in TEXTS * 3]
        leads = Counter(a.chosen[0] for a, _ in pairs)
        same = Counter(a.chosen[0] for a, b in pairs if a.chosen[0] == b.chosen[0])
        assert 0 < sum(same.values()) < len(pairs)
        version = gate(9.0).version
        for expert, count in leads.items():
            tags = {"role": "shadow", "version": version, "expert": expert}
            assert counted(router, "compared", **tags) == count
            assert counted(router, "same_lead", **tags) == same[expert]
        nats = sum(divergence(probabilities(a), probabilities(b)) for a, b in pairs)
        assert counted(router, "divergence_nats") == pytest.approx(nats)
        sets = sum(set(a.chosen) == set(b.chosen) for a, b in pairs)
        assert counted(router, "same_set") == sets
        assert counted(router, "decisions", role="current") == len(pairs)
    logged = list(read_pairs(registry.folder / LOG_FOLDER))
    assert [(p.lead, p.other_lead) for p in logged] == [
        (a.chosen[0], b.chosen[0]) for a, b in pairs
    ]
    assert {(p.role, p.current, p.other) for p in logged} == {("shadow", gate().version, version)}


def probabilities(decision: Decision) -> dict[str, float]:
    return {c.name: c.probability for c in decision.candidates}


class Odd(Router):
    """A router that decides its trial well; what it does then is `after`'s."""

    after: Callable[[], object]
    tried = False

    def decide(
        self,
        features: Features,
        overrides: Overrides = NO_OVERRIDES,
        situation: Situation = CALM,
        started: float | None = None,
    ) -> Decision:
        if self.tried:
            self.after()
        self.tried = True
        return super().decide(features, overrides, situation, started)


def odd_shadow(after: Callable[[], object]) -> Callable[[Gate], Router]:
    def make(found: Gate) -> Router:
        if found.version == gate().version:
            return build(found)
        router = Odd(found, word_vectors, EXPERTS, "general")
        router.after = after
        return router

    return make


def test_a_shadow_that_fails_is_counted_and_no_request_hears_of_it(tmp_path: Path) -> None:
    registry = registry_in(tmp_path, 6.0)
    registry.shadow("1", BY)

    def fail() -> None:
        raise ZeroDivisionError("the shadow's own")

    with live(registry, odd_shadow(fail)) as router:
        found = [router.route(said(text), key=text) for text in TEXTS]
        router.close()
        assert found == [build(gate()).route(said(text)) for text in TEXTS]
        assert counted(router, "shadow_failures") == len(TEXTS)
        assert counted(router, "compared") == 0


def test_a_shadow_that_hangs_makes_no_request_wait_and_holds_few(tmp_path: Path) -> None:
    registry, go = registry_in(tmp_path, 6.0), threading.Event()
    registry.shadow("1", BY)
    count = WAITING + 50
    with live(registry, odd_shadow(lambda: go.wait(60))) as router:
        for number in range(count):
            assert router.route(said("python"), key=f"{number}").chosen == ("code",)
        unseen = counted(router, "unseen")
        # One hangs, so many wait, and the rest went by.
        assert count - WAITING - 1 <= unseen <= count - WAITING
        go.set()
        router.close()
        assert counted(router, "compared") == count - unseen


def test_a_log_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    registry = registry_in(tmp_path, 6.0)
    registry.shadow("1", BY)
    (registry.folder / LOG_FOLDER).write_text("a file where the folder should be")
    with live(registry) as router:
        for text in TEXTS:
            router.route(said(text), key=text)
        router.close()
        assert counted(router, "compared") == len(TEXTS)
        assert counted(router, "log_faults") == len(TEXTS)


def test_a_broken_shadow_or_canary_leaves_the_current_version_to_act(tmp_path: Path) -> None:
    registry = registry_in(tmp_path, 6.0, 7.0)
    registry.shadow("1", BY)
    registry.canary("2", 1.0, BY)
    for name in ("1", "2"):
        (registry.folder / name / WEIGHTS_FILE).unlink()
    with live(registry) as router:
        found = router.route(said("banana"), key="a")
        assert found.router_version == gate().version
        assert counted(router, "version_faults") == 2
        assert [c.tags["role"] for c in router.counts() if c.name == "serving"] == ["current"]


def test_a_canary_acts_for_its_share_and_one_key_stays_with_it(tmp_path: Path) -> None:
    registry = registry_in(tmp_path, 6.0)
    keys = [f"session {n}" for n in range(600)]

    def acted(share: float) -> set[str]:
        registry.canary("1", share, BY)
        with live(registry) as router:
            twice = [{key for key in keys if version(router, key) == new} for _ in range(2)]
            router.close()
            assert twice[0] == twice[1]
            assert counted(router, "decisions", role="canary", version=new) == 2 * len(twice[0])
            assert counted(router, "decisions", role="current") == 2 * len(set(keys) - twice[0])
            assert counted(router, "compared", role="canary") + counted(
                router, "unseen"
            ) == 2 * len(twice[0])
            assert router.route(said("banana")).router_version == gate().version
        return twice[0]

    new = gate(6.0).version
    small, large = acted(0.1), acted(0.3)
    # Five standard deviations of a binomial of 600.
    assert abs(len(small) / 600 - 0.1) < 0.062
    assert abs(len(large) / 600 - 0.3) < 0.094
    assert small < large
    assert acted(1.0) == set(keys)


def version(router: LiveRouter, key: str) -> str:
    return router.route(said("banana"), key=key).router_version


def test_a_version_that_is_both_is_compared_once(tmp_path: Path) -> None:
    registry = registry_in(tmp_path, 9.0)
    registry.shadow("1", BY)
    registry.canary("1", 0.5, BY)
    with live(registry) as router:
        for number in range(60):
            router.route(said("banana"), key=f"{number}")
    roles = [pair.role for pair in read_pairs(registry.folder / LOG_FOLDER)]
    assert len(roles) == 60
    assert {"shadow", "canary"} == set(roles)


def test_who_only_looks_leaves_no_trace(tmp_path: Path) -> None:
    registry = registry_in(tmp_path, 9.0)
    registry.shadow("1", BY)
    before = tree(registry.folder)
    router = LiveRouter(registry, build, notes=False, keep_features=True)
    assert router.route(said("python"), key="a").chosen == ("code",)
    router.close()
    assert tree(registry.folder) == before
    assert not [count for count in router.counts() if count.name != "serving"]


def test_keys_fall_evenly_and_otherwise_for_another_canary() -> None:
    places = np.array([position(f"key {n}", "one") for n in range(4000)])
    others = np.array([position(f"key {n}", "two") for n in range(4000)])
    counts, _ = np.histogram(places, bins=20, range=(0.0, 1.0))
    # Chi-square with 19 degrees of freedom is below 43.8 in 999 of 1,000 cases.
    assert float(((counts - 200.0) ** 2 / 200.0).sum()) < 43.8
    assert abs(float(np.corrcoef(places, others)[0, 1])) < 0.06


def test_the_canarys_pairs_name_the_current_versions_lead(tmp_path: Path) -> None:
    registry = registry_in(tmp_path, 9.0)
    registry.canary("1", 1.0, BY)
    with live(registry) as router:
        assert router.route(said("banana"), key="a").chosen[0] == "code"
        router.close()
    (pair,) = read_pairs(registry.folder / LOG_FOLDER)
    assert (pair.role, pair.lead, pair.other_lead) == ("canary", "general", "code")
    assert (pair.current, pair.other) == (gate().version, gate(9.0).version)


def test_weights_of_the_callers_own_and_probes_are_not_compared(tmp_path: Path) -> None:
    registry = registry_in(tmp_path, 6.0)
    registry.shadow("1", BY)
    with live(registry) as router:
        router.route(said("python"), Overrides(weights={"legal": 1.0}), key="a")
        router.route(said("ready?"))
        with pytest.raises(ConversationError):
            router.route(said(" "), key="b")
        router.close()
        assert counted(router, "compared") == 0
        assert counted(router, "decisions") == 1


def test_a_router_that_nobody_holds_leaves_no_thread_behind(tmp_path: Path) -> None:
    registry = registry_in(tmp_path, 6.0)
    registry.shadow("1", BY)
    before = set(threading.enumerate())
    router: LiveRouter | None = LiveRouter(registry, build, poll_s=0.02)
    assert router is not None
    router.route(said("python"), key="a")
    started = set(threading.enumerate()) - before
    names = {"router-versions", "router-observer", "router-traffic"}
    assert {thread.name for thread in started} == names
    router = None
    gc.collect()
    assert until(lambda: not any(thread.is_alive() for thread in started))


def test_a_configured_gate_that_is_broken_is_told_at_the_start(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry", saved(tmp_path / "origin"))
    (tmp_path / "origin" / WEIGHTS_FILE).unlink()
    with pytest.raises(VersionError, match=WEIGHTS_FILE):
        LiveRouter(registry, build)
