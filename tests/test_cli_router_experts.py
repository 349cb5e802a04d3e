"""`collegium router teach`, `forget` and `health`: what an operator sees."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from routing_data import prompts, word_vectors
from taught_world import questions, world

from orchestrator.cli.root import cli
from orchestrator.config import Config
from orchestrator.registry import open_registry
from router.gate import Gate
from router.live import LiveRouter
from router.router import Router


@dataclass(frozen=True)
class Place:
    """A configuration with the gate of the small world, and a registry of its own."""

    folder: Path

    def run(self, *arguments: str) -> Result:
        command = ["router", *arguments, "--config", str(self.folder / "my.yaml")]
        return CliRunner().invoke(cli, command)

    def done(self, *arguments: str) -> str:
        found = self.run(*arguments)
        assert found.exit_code == 0, found.output
        return found.output

    def refused(self, *arguments: str) -> str:
        found = self.run(*arguments)
        assert found.exit_code != 0 and isinstance(found.exception, SystemExit), found.output
        return found.output

    def config(self) -> Config:
        return Config.load(self.folder / "my.yaml")

    def acting(self) -> Gate:
        return open_registry(self.config()).acting()

    def prompts(self, domain: str = "medical", count: int = 40) -> str:
        path = self.folder / f"{domain}.txt"
        path.write_text("\n".join(questions(domain, count)))
        return str(path)

    def change(self, **experts: Any) -> None:  # noqa: ANN401
        body = yaml.safe_load((self.folder / "my.yaml").read_text())
        body["experts"] |= experts
        (self.folder / "my.yaml").write_text(yaml.safe_dump(body))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setattr("orchestrator.cli.console.out.width", 240)
    monkeypatch.setattr("orchestrator.cli.console.err.width", 240)
    encoder = SimpleNamespace(encode=word_vectors)
    monkeypatch.setattr("orchestrator.replicas.open_encoder", lambda config, threads: encoder)
    world().save(tmp_path / "origin")
    (tmp_path / "origin" / "LICENSE").write_text("terms of the origin")
    (tmp_path / "origin" / "README.md").write_text("card of the origin")
    expert = {"model": "base", "adapter": "x"}
    body = {
        "models": {"base": {"source": "x"}},
        "experts": {"general": {"model": "base"}, "code": expert, "legal": expert}
        | {"multilingual": expert, "medical": expert},
        "router": {"weights": "origin", "versions": "versions"},
    }
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(body))
    return Place(tmp_path)


def test_an_expert_is_taught_as_a_version_that_does_not_act_yet(place: Place) -> None:
    output = place.done("teach", "medical", "--prompts", place.prompts())
    assert "its prompts that reach it, each left out once" in output
    assert "of 40" in output and "nearest expert" in output
    assert "version 1 (" in output and "multilingual, medical" in output
    assert "It does not act: `collegium router promote 1` lets it." in output
    assert place.acting().version == world().version
    assert "version 1 acts." in place.done("promote", "1")
    assert place.acting().labels == (*world().labels, "medical")
    folder = place.folder / "versions" / "1"
    assert (folder / "LICENSE").read_text() == "terms of the origin"
    card = (folder / "README.md").read_text()
    assert place.acting().version in card and "| medical | 40 |" in card
    assert card.endswith("card of the origin")
    assert "taught medical from 40 prompts, beginning with 0" in place.done("history")


def test_teaching_promotes_where_it_is_asked_to(place: Place) -> None:
    output = place.done("teach", "medical", "--prompts", place.prompts(), "--promote")
    assert "version 1 acts." in output
    fresh = place.acting()
    second = place.done("teach", "finance", "--prompts", place.prompts("finance"))
    assert "the configuration has no expert finance" in second
    assert open_registry(place.config()).gate("2").labels == (*fresh.labels, "finance")
    card = (place.folder / "versions" / "2" / "README.md").read_text()
    assert "| medical | 40 |" in card and "| finance | 40 |" in card
    assert card.count("card of the origin") == 1
    assert "finance is no expert of the configuration" in place.refused("promote", "2")


def test_figures_come_as_json(place: Place) -> None:
    found = json.loads(place.done("teach", "medical", "--prompts", place.prompts(), "--json"))
    assert found["expert"] == "medical" and found["examples"] == 40
    assert found["recall"]["value"] >= 0.9
    shown = json.loads(place.done("show", "1", "--json"))
    assert shown["report"]["taught"]["medical"] == found


def test_a_version_to_begin_with_can_be_named(place: Place) -> None:
    place.done("teach", "medical", "--prompts", place.prompts(), "--promote")
    place.done("teach", "finance", "--prompts", place.prompts("finance"), "--from", "0")
    assert open_registry(place.config()).gate("2").labels == (*world().labels, "finance")


def test_a_twin_is_named(place: Place) -> None:
    texts = [row.text for row in prompts(400, seed=21) if row.labels == ("legal",)][:40]
    (place.folder / "contracts.txt").write_text("\n".join(texts))
    output = place.done("teach", "medical", "--prompts", str(place.folder / "contracts.txt"))
    assert "medical is a twin of legal" in output
    # What it takes from the law's expert is counted against the version.
    refused = place.refused("promote", "1")
    assert "broken  held_out.accuracy" in refused


def test_what_cannot_be_taught_is_said(place: Place) -> None:
    few = place.refused("teach", "medical", "--prompts", place.prompts(count=19))
    assert "19 different prompts are too few, at least 20" in few
    assert "is a label already" in place.refused("teach", "legal", "--prompts", place.prompts())
    assert "there is no version 'x'" in place.refused(
        "teach", "medical", "--prompts", place.prompts(), "--from", "x"
    )
    Gate(world().labels, world().weight, world().bias).save(place.folder / "origin")
    old = place.refused("teach", "medical", "--prompts", place.prompts())
    assert "no background" in old and "collegium train router" in old
    assert not (place.folder / "versions" / "1").exists()


def test_forgetting_brings_the_router_back_to_what_it_was(place: Place) -> None:
    place.done("teach", "medical", "--prompts", place.prompts(), "--promote")
    place.change(medical={"model": "base", "adapter": "x", "enabled": False})
    output = place.done("forget", "medical", "--promote")
    assert "version 2 acts." in output
    assert place.acting().version == world().version
    assert "No expert is taught to it." in (place.folder / "versions/2/README.md").read_text()


def test_a_trained_label_is_left_to_the_generalist(place: Place) -> None:
    place.done("forget", "legal")
    gate = open_registry(place.config()).gate("1")
    assert gate.labels == ("code", "general", "multilingual")
    assert (
        "Its units count for code, general, multilingual"
        in (place.folder / "versions/1/README.md").read_text()
    )
    # It is still configured, so the version may not act by itself.
    assert "also knows the configured legal" in place.refused("promote", "1")
    assert "cannot be forgotten" in place.refused("forget", "general")
    assert "'nobody' is no label" in place.refused("forget", "nobody")


def test_a_running_service_follows_what_it_was_taught(place: Place) -> None:
    registry = open_registry(place.config())
    experts = list(place.config().experts)

    def build(gate: Gate) -> Router:
        return Router(gate, word_vectors, experts, "general")

    router = LiveRouter(registry, build, poll_s=0.02)
    try:
        text = questions("medical", 1, seed=9)[0]
        assert "medical" not in router.route([("user", text)], key="a").chosen
        place.done("teach", "medical", "--prompts", place.prompts(), "--promote")
        from test_router_live import until

        assert until(lambda: router.version != world().version)
        assert router.route([("user", text)], key="b").chosen == ("medical",)
    finally:
        router.close()


def served(place: Place, texts: list[str]) -> None:
    """A service that answers these requests and ends."""
    config = place.config()

    def build(gate: Gate) -> Router:
        experts = list(config.experts)
        return Router(gate, word_vectors, experts, "general", disabled=config.disabled)

    router = LiveRouter(open_registry(config), build)
    for number, text in enumerate(texts):
        router.route([("user", text)], key=f"{number}")
    router.close()


def test_health_tells_who_is_dead_who_are_twins_and_whether_traffic_drifts(place: Place) -> None:
    nothing = place.done("health")
    assert "0 requests" in nothing and "too few sampled requests" in nothing
    rows = [row.text for row in prompts(300, 61) if row.labels != ("legal",)]
    served(place, rows)
    output = place.done("health")
    assert f"{len(rows)} requests since" in output and "of them sampled" in output
    uses = output.partition("most alike")[0]
    lines = {line.split()[1]: line for line in uses.splitlines() if line.startswith("│")}
    assert "dead: at most" in lines["legal"] and "dead: at most" in lines["medical"]
    assert "dead" not in lines["code"]
    assert "mix: stability index" in output and "drift: " in output
    found = json.loads(place.done("health", "--json"))
    assert [use["name"] for use in found["uses"] if use["dead"]] == ["legal", "medical"]
    assert found["drift"]["drifted"] in (True, False)
    assert len(found["pairs"]) == 10


def test_health_looks_at_the_time_it_is_asked_about(place: Place) -> None:
    served(place, [row.text for row in prompts(60, 62)])
    assert "60 requests since" in place.done("health", "--since", "2h")
    assert "0 requests since" in place.done("health", "--since", "2999-01-01T00:00")
    assert "nor an age (30m, 12h, 7d, 2w)" in place.refused("health", "--since", "yesterday")


def test_health_does_not_call_a_disabled_expert_dead(place: Place) -> None:
    place.change(medical={"model": "base", "adapter": "x", "enabled": False})
    served(place, [row.text for row in prompts(100, 63)])
    line = next(line for line in place.done("health").splitlines() if " medical " in line)
    assert "disabled" in line and "dead" not in line
