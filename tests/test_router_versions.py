"""The registry of versions: what it lets act, what it refuses, and what a kill leaves behind."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gate_folders import BY, STANDARDS, gate, registry_in, saved, tree
from test_router_routing import word_vectors

from router.bars import Bar, figure, judge, judge_labels
from router.features import featurize
from router.gate import METADATA_FILE, WEIGHTS_FILE, Gate, GateError
from router.history import HISTORY_FILE
from router.lineup import LINEUP_FILE, Lineup, VersionError, read_lineup
from router.standards import Standards
from router.version import MANIFEST_FILE, REPORT_FILE, Signature, fingerprint_of
from router.versions import Refused, Registry

HERE = Path(__file__).parent


def test_version_0_acts_where_nothing_was_added_and_no_folder_is_made(tmp_path: Path) -> None:
    registry = registry_in(tmp_path)
    assert registry.lineup() == Lineup("0")
    assert registry.names() == ["0"]
    assert registry.history() == []
    assert registry.version("0").hash == gate().version
    assert registry.gate("0").labels == ("code", "general", "legal", "multilingual")
    assert not registry.folder.exists()


def test_an_added_version_is_a_whole_copy_that_outlives_its_source(tmp_path: Path) -> None:
    registry, source = registry_in(tmp_path), saved(tmp_path / "new", 0.5)
    (source / "README.md").write_text("a card")
    added = registry.add(source, BY)
    shutil.rmtree(source)
    assert (added.name, added.hash, added.by, added.why) == (
        "1",
        gate(0.5).version,
        BY.by,
        BY.why,
    )
    assert registry.version("1") == added
    assert (added.folder / "README.md").read_text() == "a card"
    features = featurize([("user", "python contract")], word_vectors).joined()
    np.testing.assert_array_equal(
        registry.gate("1").probabilities(features), gate(0.5).probabilities(features)
    )
    assert registry.lineup().current == "0"


def test_the_data_is_told_by_its_fingerprint() -> None:
    one = {"data": [{"source": "a", "rows": 1}]}
    assert fingerprint_of(one) == fingerprint_of({"data": [{"rows": 1, "source": "a"}], "seed": 1})
    assert fingerprint_of(one) != fingerprint_of({"data": [{"source": "a", "rows": 2}]})
    assert fingerprint_of({"data_fingerprint": "abc", **one}) == "abc"
    assert fingerprint_of({}) == ""


def test_figures_of_a_report_go_before_those_of_training(tmp_path: Path) -> None:
    registry, source = registry_in(tmp_path), saved(tmp_path / "new", 0.5)
    (source / REPORT_FILE).write_text('{"regret": 0.2, "eval": {"accuracy": 0.9}}')
    given = tmp_path / "given.json"
    given.write_text('{"eval": {"accuracy": 0.97}}')
    report = registry.add(source, BY, report=given).report
    assert figure(report, "held_out.accuracy") == 0.98
    assert figure(report, "regret") == 0.2
    assert figure(report, "eval.accuracy") == 0.97


def test_names_are_numbers_that_are_never_given_twice(tmp_path: Path) -> None:
    registry = registry_in(tmp_path, 0.1, 0.2)
    registry.remove("2", BY)
    named = registry.add(saved(tmp_path / "new", 0.3), BY, name="may-data")
    assert registry.add(saved(tmp_path / "more", 0.4), BY).name == "3"
    assert registry.names() == ["0", "1", "3", "may-data"]
    with pytest.raises(VersionError, match="may-data is there already"):
        registry.add(tmp_path / "new", BY, name=named.name)
    with pytest.raises(VersionError, match="version 0 is there already"):
        registry.add(tmp_path / "new", BY, name="0")


def test_promotion_and_rollback_exchange_current_and_previous(tmp_path: Path) -> None:
    registry = registry_in(tmp_path, 0.1, 0.2)
    seen = []
    for change in (
        lambda: registry.promote("1", BY, STANDARDS),
        lambda: registry.promote("2", BY, STANDARDS),
        lambda: registry.rollback(BY),
        lambda: registry.rollback(BY),
    ):
        change()
        lineup = registry.lineup()
        seen.append((lineup.current, lineup.previous))
    assert seen == [("1", "0"), ("2", "1"), ("1", "2"), ("2", "1")]
    told = [(c.serial, c.action, c.before, c.after) for c in registry.history()]
    assert told == [
        (1, "add", "-", "1"),
        (2, "add", "-", "2"),
        (3, "promote", "0", "1"),
        (4, "promote", "1", "2"),
        (5, "rollback", "2", "1"),
        (6, "rollback", "1", "2"),
    ]
    assert {(c.by, c.why) for c in registry.history()} == {("tester@here", "because")}


def test_there_is_no_way_back_before_the_first_promotion(tmp_path: Path) -> None:
    with pytest.raises(VersionError, match="no previous version"):
        registry_in(tmp_path, 0.1).rollback(BY)


@pytest.mark.parametrize(
    ("report", "words"),
    [
        ({"accuracy": 0.85}, "held_out.accuracy is 0.8500, at least 0.9000 is asked"),
        (
            {"accuracy": 0.96},
            "held_out.accuracy is 0.9600, the acting version's 0.9800; it may be 0.0100 below",
        ),
        ({"ece": 0.06}, "held_out.ece is 0.0600, at most 0.0500 is allowed"),
        (
            {"ece": 0.045},
            "held_out.ece is 0.0450, the acting version's 0.0200; it may be 0.0200 above",
        ),
        ({"accuracy": None}, "held_out.accuracy: the report has no such figure"),
        ({"accuracy": float("nan")}, "held_out.accuracy: the report has no such figure"),
        ({"accuracy": True}, "held_out.accuracy: the report has no such figure"),
    ],
)
def test_a_broken_limit_refuses_with_both_figures(
    tmp_path: Path, report: dict[str, Any], words: str
) -> None:
    registry = registry_in(tmp_path)
    registry.add(saved(tmp_path / "new", 0.5, **report), BY)
    before = tree(registry.folder)
    with pytest.raises(Refused) as refused:
        registry.promote("1", BY, STANDARDS)
    assert words in str(refused.value)
    assert words in [found.words for found in refused.value.findings if not found.kept]
    assert tree(registry.folder) == before
    registry.promote("1", Signature("tester", "it is the only one for May"), STANDARDS, force=True)
    assert registry.lineup().current == "1"
    assert registry.history()[-1].why == "it is the only one for May"


@pytest.mark.parametrize(
    ("bar", "value", "acting", "kept"),
    [
        (Bar("x", at_least=0.5), 0.5, None, [True]),
        (Bar("x", at_least=0.5), 0.4999, None, [False]),
        (Bar("x", at_most=0.5), 0.5, None, [True]),
        (Bar("x", at_most=0.5), 0.5001, None, [False]),
        (Bar("x", drop=0.1), 0.5, 0.6, [True]),
        (Bar("x", drop=0.1), 0.4999, 0.6, [False]),
        (Bar("x", drop=0.0), 0.7, 0.6, [True]),
        (Bar("x", rise=0.1), 0.7, 0.6, [True]),
        (Bar("x", rise=0.1), 0.7001, 0.6, [False]),
        (Bar("x", drop=0.1, rise=0.1), 0.2, None, [True, True]),
        (Bar("x", at_least=0.1, at_most=0.3, drop=0.0, rise=0.0), 0.2, 0.2, [True] * 4),
    ],
)
def test_limits_hold_up_to_and_with_their_value(
    bar: Bar, value: float, acting: float | None, kept: list[bool]
) -> None:
    report = {} if acting is None else {"x": acting}
    assert [found.kept for found in judge({"x": value}, report, [bar])] == kept


def test_a_version_must_know_the_experts_and_no_strangers() -> None:
    def broken(labels: str, acting: str, experts: str) -> list[str]:
        found = judge_labels(labels.split(), acting.split(), experts.split())
        return [finding.words for finding in found if not finding.kept]

    assert broken("a b", "a b", "a b") == []
    assert broken("a b c", "a b", "a b c") == []
    # A label that only the acting version knows too, and one that nobody is configured for.
    assert broken("a b x", "a x", "a b") == []
    assert broken("a", "a x", "a b") == []
    (lost,) = broken("a", "a b", "a b")
    assert "also knows the configured b" in lost
    (strange,) = broken("a b x", "a b", "a b")
    assert "x is no expert of the configuration, which has a, b" in strange


def test_a_version_that_forgot_an_expert_is_refused(tmp_path: Path) -> None:
    registry, less = registry_in(tmp_path), gate()
    less = replace(less, labels=("code", "general", "legal", "law"))
    less.save(tmp_path / "less")
    registry.add(tmp_path / "less", BY)
    with pytest.raises(Refused, match="the configured multilingual") as refused:
        registry.promote("1", BY, STANDARDS)
    assert "law is no expert of the configuration" in str(refused.value)


def rewritten(path: Path, **changes: Any) -> None:  # noqa: ANN401
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


BREAKAGES: dict[str, Callable[[Path], object]] = {
    "weights gone": lambda folder: (folder / WEIGHTS_FILE).unlink(),
    "weights torn": lambda folder: (folder / WEIGHTS_FILE).write_bytes(b"\x00" * 40),
    "weights of another": lambda folder: shutil.copy(
        folder.parents[1] / "gate-1" / WEIGHTS_FILE, folder
    ),
    "manifest gone": lambda folder: (folder / MANIFEST_FILE).unlink(),
    "manifest torn": lambda folder: (folder / MANIFEST_FILE).write_text('{"format": 1, "ha'),
    "manifest a list": lambda folder: (folder / MANIFEST_FILE).write_text("[]"),
    "manifest of the future": lambda folder: rewritten(folder / MANIFEST_FILE, format=9),
    "manifest without labels": lambda folder: rewritten(folder / MANIFEST_FILE, labels=[]),
    "manifest with a path": lambda folder: rewritten(
        folder / MANIFEST_FILE, files={"../../origin/gate.json": "0" * 64}
    ),
    "manifest of another gate": lambda folder: rewritten(folder / MANIFEST_FILE, hash="0" * 12),
    "report torn": lambda folder: (folder / REPORT_FILE).write_text("{"),
    "other features": lambda folder: (
        rewritten(folder / METADATA_FILE, features="0"),
        rewritten(folder / MANIFEST_FILE, files={}),
    ),
    "card changed": lambda folder: (folder / METADATA_FILE).open("a").write(" "),
}


@pytest.mark.parametrize("how", BREAKAGES)
def test_a_broken_version_never_acts_whatever_force_says(tmp_path: Path, how: str) -> None:
    registry = registry_in(tmp_path, 0.1, 0.2)
    BREAKAGES[how](registry.folder / "1")
    before = tree(registry.folder)
    for change in (
        lambda: registry.promote("1", BY, Standards(), force=True),
        lambda: registry.shadow("1", BY),
        lambda: registry.canary("1", 0.5, BY),
    ):
        with pytest.raises(VersionError):
            change()
    assert tree(registry.folder) == before
    assert registry.names() == ["0", "1", "2"]
    registry.promote("2", BY, STANDARDS)
    registry.remove("1", BY)
    assert registry.names() == ["0", "2"]


def test_a_broken_acting_version_can_be_replaced(tmp_path: Path) -> None:
    registry = registry_in(tmp_path, 0.1, 0.2)
    registry.promote("1", BY, STANDARDS)
    shutil.rmtree(registry.folder / "1")
    found = registry.promote("2", BY, STANDARDS)
    assert "compared with nothing" in found[0].words
    assert registry.lineup().current == "2"
    with pytest.raises(VersionError, match="there is no version '1'"):
        registry.rollback(BY)
    assert registry.lineup().current == "2"


NAMES = ["../x", "..", ".", "", "/etc", "a/b", "a\\b", "A", "-x", "_x", ".staging", "x" * 64, "ä"]


@pytest.mark.parametrize("name", [*NAMES, "lineup.json", "a\n", "a\0"])
def test_a_name_that_is_no_plain_folder_is_refused(tmp_path: Path, name: str) -> None:
    registry = registry_in(tmp_path, 0.1)
    before = tree(tmp_path)
    source = tmp_path / "gate-0"
    for change in (
        lambda: registry.add(source, BY, name=name),
        lambda: registry.promote(name, BY, Standards(), force=True),
        lambda: registry.shadow(name, BY),
        lambda: registry.canary(name, 0.5, BY),
        lambda: registry.remove(name, BY),
        lambda: registry.version(name),
        lambda: registry.gate(name),
    ):
        with pytest.raises(VersionError, match="cannot name a version"):
            change()
    assert tree(tmp_path) == before


def test_a_lineup_that_names_a_path_is_not_followed(tmp_path: Path) -> None:
    registry = registry_in(tmp_path, 0.1)
    rewritten(registry.folder / LINEUP_FILE, current="../../gate-0")
    with pytest.raises(VersionError, match="not a lineup"):
        registry.lineup()


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": 2}', "\x00"])
def test_a_lineup_that_cannot_be_read_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / LINEUP_FILE).write_text(text)
    with pytest.raises(VersionError, match=LINEUP_FILE):
        read_lineup(tmp_path)


@pytest.mark.parametrize("share", [0.0, -0.1, 1.1, float("nan"), float("inf")])
def test_a_canarys_share_is_above_0_and_at_most_1(tmp_path: Path, share: float) -> None:
    registry = registry_in(tmp_path, 0.1)
    with pytest.raises(VersionError, match="above 0 and at most 1"):
        registry.canary("1", share, BY)
    assert registry.lineup().canary is None


def test_promotion_ends_what_a_version_was_besides(tmp_path: Path) -> None:
    registry = registry_in(tmp_path, 0.1, 0.2)
    registry.shadow("2", BY)
    registry.canary("1", 0.25, BY)
    lineup = registry.lineup()
    assert (lineup.shadow, lineup.canary, lineup.share) == ("2", "1", 0.25)
    for name in ("1", "2", "0"):
        with pytest.raises(VersionError, match="cannot be removed"):
            registry.remove(name, BY)
    registry.promote("1", BY, STANDARDS)
    lineup = registry.lineup()
    assert (lineup.current, lineup.shadow, lineup.canary, lineup.share) == ("1", "2", None, 0.0)
    with pytest.raises(VersionError, match="acts already"):
        registry.shadow("1", BY)
    with pytest.raises(VersionError, match="acts already"):
        registry.promote("1", BY, STANDARDS)
    registry.shadow(None, BY)
    registry.canary("2", 0.5, BY)
    registry.canary(None, 0.0, BY)
    told = [(c.action, c.before, c.after) for c in registry.history()][2:]
    assert told == [
        ("shadow", "-", "2"),
        ("canary", "-", "1 at 25.00%"),
        ("promote", "0", "1"),
        ("shadow", "2", "-"),
        ("canary", "-", "2 at 50.00%"),
        ("canary", "2 at 50.00%", "-"),
    ]


def test_a_version_that_no_service_could_serve_gets_no_role(tmp_path: Path) -> None:
    def refuses(_gate: Gate) -> None:
        raise GateError("it promises nothing for max_risk 0.1")

    registry = registry_in(tmp_path, 0.1)
    standards = replace(STANDARDS, usable=refuses)
    for change in (
        lambda: registry.promote("1", BY, standards, force=True),
        lambda: registry.shadow("1", BY, standards),
        lambda: registry.canary("1", 0.5, BY, standards),
    ):
        with pytest.raises(VersionError, match=r"version 1 cannot act here: it promises nothing"):
            change()
    assert registry.lineup().roles("1") == []


def test_a_version_for_another_encoder_is_refused_though_its_vectors_are_as_long(
    tmp_path: Path,
) -> None:
    registry = registry_in(tmp_path)
    for number, encoder in enumerate(("words", "other-words"), start=1):
        folder = tmp_path / f"new-{number}"
        replace(gate(0.1 * number), encoder=encoder).save(folder)
        registry.add(folder, BY)
    registry.promote("1", BY, STANDARDS, force=True)
    with pytest.raises(Refused) as caught:
        registry.promote("2", BY, STANDARDS)
    broken = [found.words for found in caught.value.findings if not found.kept]
    assert broken == ["encoder: other-words, the acting version's words"]


def test_a_damaged_history_stops_no_rollback(tmp_path: Path) -> None:
    registry = registry_in(tmp_path, 0.1)
    registry.promote("1", BY, STANDARDS)
    path = registry.folder / HISTORY_FILE
    path.write_text("no change\n" + path.read_text() + "\0\0\n")
    assert registry.rollback(BY).current == "0"


def test_a_line_of_history_torn_by_a_kill_is_written_anew(tmp_path: Path) -> None:
    registry = registry_in(tmp_path, 0.1)
    registry.promote("1", BY, STANDARDS)
    path = registry.folder / HISTORY_FILE
    whole = path.read_text()
    path.write_text(whole[:-20])
    assert [c.action for c in registry.history()] == ["add", "promote"]
    registry.rollback(BY)
    assert path.read_text().startswith(whole)
    assert [c.serial for c in registry.history()] == [1, 2, 3]


def prepared(folder: Path) -> Registry:
    """A registry in which every change of `kill_steps` can be made."""
    registry = registry_in(folder, 0.1, 0.2, 0.3)
    registry.promote("1", BY, STANDARDS)
    return registry


@pytest.mark.parametrize("change", ["promote", "rollback", "add", "remove"])
def test_a_kill_at_any_line_leaves_a_registry_that_works(tmp_path: Path, change: str) -> None:
    registry = prepared(tmp_path)
    command = [sys.executable, str(HERE / "kill_steps.py"), str(registry.folder)]
    runs = [str(tmp_path / "origin"), str(tmp_path / "runs"), change]
    done = subprocess.run([*command, *runs], capture_output=True, text=True, check=True)
    steps = int(done.stdout)
    assert steps > 30
    after = {"promote": ("2", "1"), "rollback": ("0", "1")}.get(change, ("1", "0"))
    seen = set()
    for step in range(steps + 1):
        left = Registry(tmp_path / "runs" / str(step), tmp_path / "origin")
        lineup = left.lineup()
        seen.add((lineup.current, lineup.previous))
        assert (lineup.current, lineup.previous) in {("1", "0"), after}, step
        left.gate(lineup.current)
        for name in left.names():
            left.gate(name)
        # The lock died with its holder, and the next change finds nothing in its way.
        left.promote("0" if lineup.current != "0" else "2", Signature("next"), Standards())
        if change in ("add", "remove"):
            assert left.add(tmp_path / "gate-0", Signature("next")).name in {"4", "5"}
            assert not list(left.folder.glob(".staging")) + list(left.folder.glob(".removed"))
        serials = [c.serial for c in left.history()]
        assert serials == list(range(1, len(serials) + 1)), step
        acted = [c.after for c in left.history() if c.action in ("promote", "rollback")]
        assert acted[-1] == left.lineup().current
    assert seen == {("1", "0"), after}


TURNS = """
import sys
from pathlib import Path
from router.version import Signature
from router.standards import Standards
from router.versions import Registry
from router.lineup import VersionError

registry = Registry(Path(sys.argv[1]), Path(sys.argv[2]))
for turn in range(int(sys.argv[4])):
    try:
        registry.promote(str(turn % 2 + 1), Signature(sys.argv[3]), Standards())
    except VersionError as error:
        if "acts already" not in str(error):
            raise
"""


def test_writers_at_the_same_time_take_turns_and_readers_never_see_half(tmp_path: Path) -> None:
    registry = registry_in(tmp_path, 0.1, 0.2)
    places = [str(registry.folder), str(tmp_path / "origin")]
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", TURNS, *places, f"writer {n}", "25"], cwd=HERE.parent
        )
        for n in range(3)
    ]
    seen = []
    while any(writer.poll() is None for writer in writers):
        seen.append(registry.lineup().current)
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    assert set(seen) <= {"0", "1", "2"}
    changes = registry.history()
    assert [c.serial for c in changes] == list(range(1, len(changes) + 1))
    promotions = [c for c in changes if c.action == "promote"]
    assert {c.by for c in promotions} == {"writer 0", "writer 1", "writer 2"}
    # Each began with what the one before it left: none was lost, none was made twice.
    expected = ["0", *(c.after for c in promotions)]
    assert [c.before for c in promotions] == expected[:-1]
    assert registry.lineup().current == expected[-1]
