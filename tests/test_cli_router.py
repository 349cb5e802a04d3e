"""`collegium router`: what an operator sees."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result
from gate_folders import gate, saved

from orchestrator.cli.root import cli
from orchestrator.config import Config
from orchestrator.registry import open_registry, standards
from router.bars import Bar
from router.comparison import Pair
from router.comparison_log import LOG_FOLDER, ComparisonLog


@dataclass(frozen=True)
class Place:
    """A configuration with a registry of its own."""

    folder: Path

    def run(self, *arguments: str, text: str | None = None) -> Result:
        command = ["router", *arguments, "--config", str(self.folder / "my.yaml")]
        return CliRunner().invoke(cli, command, input=text)

    def done(self, *arguments: str) -> str:
        found = self.run(*arguments)
        assert found.exit_code == 0, found.output
        return found.output

    def refused(self, *arguments: str) -> str:
        found = self.run(*arguments)
        assert found.exit_code != 0, found.output
        assert isinstance(found.exception, SystemExit), found.exception
        return found.output

    def config(self) -> Config:
        return Config.load(self.folder / "my.yaml")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setattr("orchestrator.cli.console.out.width", 240)
    saved(tmp_path / "origin")
    expert = {"model": "base", "adapter": "x"}
    body = {
        "models": {"base": {"source": "x"}},
        "experts": {"general": {"model": "base"}, "code": expert, "legal": expert}
        | {"multilingual": expert},
        "router": {"weights": "origin", "versions": "versions"},
    }
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(body))
    return Place(tmp_path)


def test_a_version_goes_its_way_from_training_to_rollback(place: Place) -> None:
    added = place.done("add", str(saved(place.folder / "new", 0.5)), "--why", "May's data")
    new = gate(0.5).version
    assert added == f"version 1 ({new}) for code, general, legal, multilingual\n"
    place.done("shadow", "1")
    place.done("canary", "1", "--share", "0.125")
    rows = place.done("list")
    assert "canary 12.5%" in rows and new in rows and gate().version in rows
    assert "0.9800" in rows and "held_out.ece" in rows
    assert "version 1 acts." in place.done("promote", "1", "--why", "it agrees")
    assert "version 0 acts again, not 1." in place.done("rollback")
    told = place.done("history")
    for word in ("May's data", "1 at 12.50%", "it agrees", "rollback"):
        assert word in told
    assert open_registry(place.config()).lineup().current == "0"


def test_a_version_that_breaks_a_gate_needs_force_and_a_reason(place: Place) -> None:
    place.done("add", str(saved(place.folder / "new", 0.5, accuracy=0.8)))
    output = place.refused("promote", "1")
    assert "broken  held_out.accuracy is 0.8000, at least 0.9000 is asked" in output
    assert "the acting version's 0.9800" in output
    assert "--force" in output
    assert "broken  held_out.accuracy is 0.8000" in place.done("show", "1")
    assert "needs a reason" in place.refused("promote", "1", "--force")
    place.done("promote", "1", "--force", "--why", "the only one for May")
    assert "the only one for May" in place.done("history")


def test_the_gates_of_the_configuration_count(place: Place) -> None:
    body = yaml.safe_load((place.folder / "my.yaml").read_text())
    body["router"]["gates"] = {"eval.regret": {"at_most": 0.3}}
    (place.folder / "my.yaml").write_text(yaml.safe_dump(body))
    assert standards(place.config()).bars == (Bar("eval.regret", at_most=0.3),)
    place.done("add", str(saved(place.folder / "new", 0.5, accuracy=0.1)))
    assert "eval.regret: the report has no such figure" in place.refused("promote", "1")
    report = place.folder / "eval.json"
    report.write_text('{"eval": {"regret": 0.25}}')
    place.done("add", str(place.folder / "new"), "--report", str(report), "--name", "measured")
    place.done("promote", "measured")


@pytest.mark.parametrize(
    "arguments",
    [
        ["show", "../x"],
        ["promote", "../x", "--force", "--why", "x"],
        ["shadow", "../x"],
        ["canary", "../x"],
        ["remove", "../x", "--yes"],
        ["compare", "../x"],
        ["show", "nobody"],
        ["promote", "nobody"],
        ["remove", "nobody", "--yes"],
        ["remove", "0", "--yes"],
        ["promote", "0"],
        ["rollback"],
        ["compare"],
    ],
)
def test_what_cannot_be_done_is_said_without_a_traceback(
    place: Place, arguments: list[str]
) -> None:
    assert place.refused(*arguments).startswith("Error: ")


def test_a_folder_without_a_gate_is_not_added(place: Place) -> None:
    (place.folder / "empty").mkdir()
    assert "gate.json" in place.refused("add", str(place.folder / "empty"))
    assert "cannot name a version" in place.refused(
        "add", str(saved(place.folder / "new")), "--name", "../x"
    )


@pytest.mark.parametrize("command", ["shadow", "canary"])
def test_a_role_needs_a_version_or_its_end(place: Place, command: str) -> None:
    assert "give the name of a version, or --off" in place.refused(command)
    assert "give the name of a version, or --off" in place.refused(command, "1", "--off")
    place.done("add", str(saved(place.folder / "new", 0.5)))
    place.done(command, "1")
    place.done(command, "--off")
    assert open_registry(place.config()).lineup().roles("1") == []


def test_a_broken_version_is_listed_as_such_and_can_be_removed(place: Place) -> None:
    place.done("add", str(saved(place.folder / "new", 0.5)))
    (place.folder / "versions" / "1" / "version.json").write_text("{")
    assert "broken" in place.done("list")
    asked = place.run("remove", "1", text="n\n")
    assert asked.exit_code == 1 and (place.folder / "versions" / "1").is_dir()
    place.done("remove", "1", "--yes")
    assert not (place.folder / "versions" / "1").exists()


def test_the_manifest_is_printed_as_json(place: Place) -> None:
    place.done("add", str(saved(place.folder / "new", 0.5)), "--why", "[May]")
    shown = json.loads(place.done("show", "1", "--json"))
    assert (shown["hash"], shown["why"]) == (gate(0.5).version, "[May]")
    assert shown["report"]["held_out"]["accuracy"] == 0.98
    assert "[May]" in place.done("show", "1")


def test_pairs_of_both_versions_are_compared_and_no_others(place: Place) -> None:
    place.done("add", str(saved(place.folder / "new", 0.5)))
    place.done("shadow", "1")
    assert "no request was decided by both" in place.refused("compare")
    old, new = gate().version, gate(0.5).version
    same = Pair("shadow", old, new, 1.0, "code", "code", ("code",), ("code",), 0.1)
    moved = Pair("shadow", old, new, 2.0, "legal", "code", ("legal",), ("code",), 0.5)
    stranger = Pair("shadow", "elsewhere", new, 3.0, "x", "y", ("x",), ("y",), 9.0)
    log = ComparisonLog(place.folder / "versions" / LOG_FOLDER)
    for pair in (same, same, moved, stranger):
        log.add(pair)
    rows = json.loads(place.done("compare", "--json"))
    assert list(rows) == ["all", "code", "legal"]
    assert rows["all"]["pairs"] == 3
    assert rows["all"]["same_lead"]["value"] == pytest.approx(2 / 3)
    # Wilson's interval of 2 in 3, from a table.
    assert rows["all"]["same_lead"]["low"] == pytest.approx(0.2077, abs=1e-4)
    assert rows["all"]["same_lead"]["high"] == pytest.approx(0.9385, abs=1e-4)
    assert rows["legal"]["moved"] == {"code": 1}
    assert rows["legal"]["divergence"]["high"] is None
    table = place.done("compare")
    assert "3 requests" in table and "66.67% [20.77%, 93.85%]" in table and "code 1" in table


def test_help_shows_every_command(place: Place) -> None:
    shown = CliRunner().invoke(cli, ["router", "--help"]).output
    for command in ("add", "canary", "compare", "history", "list", "promote"):
        assert f"  {command} " in shown
    for command in ("remove", "rollback", "shadow", "show"):
        assert f"  {command} " in shown
    shutil.rmtree(place.folder / "origin")
    assert "broken" in place.done("list")
