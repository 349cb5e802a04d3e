"""The log of decisions: what comes back is what went in, bounded, whole, and for its tenant."""

from __future__ import annotations

import sqlite3
import stat
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from logged_rows import row

from orchestrator.config import FeedbackConfig
from orchestrator.decision_log import (
    FILE,
    Bounds,
    DecisionLog,
    LogError,
    _use_wal,
    log_file,
    read_log,
)
from orchestrator.latency_class import LatencyClass, latency_class
from router.draw import Draw
from router.logged_decision import LoggedDecision, Opinion, Read
from router.overrides import Overrides
from router.provenance import LoggedSource, Provenance
from router.situation import Situation

ODD = ["dec-'; DROP TABLE decisions; --", "dec-%_?*", "\0", "déc-ß-𝔘", "a b\n\tc", '"', "x" * 128]
FOREVER = Bounds(10_000, 1e12)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log" / "decisions.sqlite"


def kept(path: Path, rows: list[LoggedDecision], bounds: Bounds = FOREVER) -> DecisionLog:
    log = DecisionLog(path, bounds)
    with log.transaction() as writing:
        for one in rows:
            writing.add(one)
    return log


def rated(log: DecisionLog, name: str, opinion: Opinion, tenant: str = "default") -> bool | None:
    with log.transaction() as writing:
        return writing.rate(name, tenant, opinion)


def names(path: Path) -> list[str]:
    return [one.id for one in read_log(path)]


def full_row() -> LoggedDecision:
    dice = np.random.default_rng(0)
    return row(
        1,
        None,
        {"legal": 0.6, "code": 0.4},
        Draw(0.1, ("legal", "code"), False, 0.9),
        kind="route",
        abstained=True,
        overrides=Overrides(top_k=2, experts=("legal", "code"), preferences={"code": -0.5}),
        situation=Situation(
            previous={"code": 1.0},
            costs={"code": 0.01},
            biases={"legal": -0.02},
            seconds_left=3.5,
            attached=(".py", "text/x-python"),
        ),
        read=Read.of(
            dice.normal(size=(2, 50)).astype(np.float16),
            version="1",
            encoder="words",
            dimensions=20,
            said=17,
        ),
        text="Is it so? 𝔘 \0 '",
    )


def test_a_decision_comes_back_as_it_went_in(path: Path) -> None:
    wanted = full_row()
    kept(path, [wanted, row(2)])
    found, plain = read_log(path)
    assert found == wanted
    assert plain == row(2)
    assert found.read is not None and wanted.read is not None
    np.testing.assert_array_equal(found.read.features(), wanted.read.features())


def test_forced_weights_come_back_even_those_of_nothing(path: Path) -> None:
    wanted = row(1, overrides=Overrides(weights={"code": 1.0, "legal": 0.0}))
    kept(path, [wanted])
    assert list(read_log(path)) == [wanted]


def test_a_situation_of_a_thousand_calm_experts_takes_no_room(path: Path) -> None:
    calm = {f"e{n}": 0.0 for n in range(1000)}
    kept(path, [row(1, situation=Situation(biases=calm, waits=calm))])
    (found,) = read_log(path)
    assert found.situation == Situation()


def test_an_opinion_is_kept_and_replaced(path: Path) -> None:
    log = kept(path, [row(1), row(2)])
    first, second = Opinion(1.0, None, None, 5.0), Opinion(-0.5, "legal", "nö", 6.0)
    assert rated(log, "dec-1", first) is False
    assert next(read_log(path)).opinion == first
    assert rated(log, "dec-1", second) is True
    assert [one.opinion for one in read_log(path)] == [second, None]
    assert [one.id for one in read_log(path, rated=True)] == ["dec-1"]


STOOD_ON = Provenance("partly", 2, 1, (LoggedSource("law", "gpl#1", "ab" * 32, 10, 90),))


def test_the_end_of_an_answer_is_noted(path: Path) -> None:
    log = kept(path, [row(1), row(2)])
    with log.transaction() as writing:
        writing.end("dec-1", "under_3s", STOOD_ON, stood_in=True)
        writing.end("dec-nobody", "under_3s", stood_in=True)
    first, second = read_log(path)
    assert (first.latency, first.stood_in) == ("under_3s", True)
    assert (second.latency, second.stood_in) == (None, False)
    assert (first.provenance, second.provenance) == (STOOD_ON, None)


def test_nobody_rates_what_is_not_theirs(path: Path) -> None:
    log = kept(path, [row(1, tenant="a"), row(2, tenant="b")])
    opinion = Opinion(1.0, None, None, 5.0)
    assert rated(log, "dec-1", opinion, tenant="b") is None
    assert rated(log, "dec-3", opinion, tenant="a") is None
    assert [one.opinion for one in read_log(path)] == [None, None]
    assert [one.id for one in read_log(path, tenant="b")] == ["dec-2"]


@pytest.mark.parametrize("name", ODD)
def test_ids_and_tenants_may_hold_any_character(path: Path, name: str) -> None:
    log = kept(path, [row(1, id=name, tenant=name), row(2)])
    assert rated(log, name, Opinion(1.0, name, name, 5.0), tenant=name) is False
    found = next(one for one in read_log(path, tenant=name) if one.id == name)
    assert found.opinion == Opinion(1.0, name, name, 5.0)
    assert len(names(path)) == 2


def test_the_oldest_go_where_there_are_too_many(path: Path) -> None:
    log = kept(path, [], Bounds(10, 1e12))
    for start in range(0, 40, 4):
        with log.transaction() as writing:
            for number in range(start, start + 4):
                writing.add(row(number))
        assert len(names(path)) == min(10, start + 4)
    assert names(path) == [f"dec-{n}" for n in range(30, 40)]


def test_decisions_with_an_opinion_stay_longest(path: Path) -> None:
    log = kept(path, [row(n) for n in range(10)], Bounds(10, 1e12))
    for number in (0, 3, 5):
        rated(log, f"dec-{number}", Opinion(1.0, None, None, 5.0))
    kept(path, [row(n) for n in range(10, 30)], Bounds(10, 1e12))
    assert names(path) == ["dec-0", "dec-3", "dec-5", *(f"dec-{n}" for n in range(23, 30))]


def test_a_log_full_of_opinions_still_has_room_for_decisions(path: Path) -> None:
    log = kept(path, [row(n) for n in range(10)], Bounds(10, 1e12))
    for number in range(10):
        rated(log, f"dec-{number}", Opinion(1.0, None, None, 5.0))
    kept(path, [row(n) for n in range(10, 18)], Bounds(10, 1e12))
    found = names(path)
    # Half of the room is for opinions, the latest of them.
    assert found == [f"dec-{n}" for n in (5, 6, 7, 8, 9, 13, 14, 15, 16, 17)]


def test_what_is_too_old_goes_opinion_or_not(path: Path) -> None:
    now = time.time()
    log = kept(path, [row(n, at=now - age) for n, age in enumerate((500, 300, 10))])
    rated(log, "dec-0", Opinion(1.0, None, None, 5.0))
    log.close()
    with DecisionLog(path, Bounds(10, 100.0)).transaction() as writing:
        # Gone before anything is said about it, so nothing is promised in vain.
        assert writing.rate("dec-1", "default", Opinion(1.0, None, None, 5.0)) is None
    assert names(path) == ["dec-2"]


def test_what_went_is_not_in_the_file_any_more(path: Path) -> None:
    word = "unmistakable-zebra"
    log = kept(path, [row(n, text=word) for n in range(50)], Bounds(10_000, 1e12))
    log.close()
    assert word.encode() in path.read_bytes()
    kept(path, [], Bounds(10_000, 1.0)).close()
    left = b"".join(file.read_bytes() for file in path.parent.iterdir())
    assert word.encode() not in left


def test_two_processes_write_one_log(path: Path) -> None:
    one, other = kept(path, [row(1)]), kept(path, [row(2)])
    assert rated(other, "dec-1", Opinion(1.0, None, None, 5.0)) is False
    assert rated(one, "dec-2", Opinion(1.0, None, None, 5.0)) is False
    assert names(path) == ["dec-1", "dec-2"]


def test_a_block_that_fails_leaves_nothing(path: Path) -> None:
    log = kept(path, [row(1)])
    with pytest.raises(ZeroDivisionError), log.transaction() as writing:
        writing.add(row(2))
        raise ZeroDivisionError
    assert names(path) == ["dec-1"]
    kept(path, [row(3)])
    assert names(path) == ["dec-1", "dec-3"]


@pytest.mark.parametrize("how", ["deleted", "moved"])
def test_a_log_that_went_away_is_begun_anew(path: Path, how: str) -> None:
    log = kept(path, [row(1)])
    if how == "deleted":
        for file in path.parent.iterdir():
            file.unlink()
    else:
        path.parent.rename(path.parent.with_name("elsewhere"))
    with log.transaction() as writing:
        writing.add(row(2))
    assert names(path) == ["dec-2"]


def test_a_file_that_is_no_log_is_left_alone_and_named(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"no database at all, but long enough to be looked at" * 50)
    before = path.read_bytes()
    with pytest.raises(LogError, match="not a database"):
        kept(path, [row(1)])
    with pytest.raises(LogError, match="not a database"):
        list(read_log(path))
    assert path.read_bytes() == before


def test_a_log_of_another_format_is_refused(path: Path) -> None:
    kept(path, [row(1)]).close()
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 9")
    for attempt in (lambda: kept(path, [row(2)]), lambda: list(read_log(path))):
        with pytest.raises(LogError, match="format is 9, this program reads 1"):
            attempt()


def test_a_row_that_was_tampered_with_is_refused(path: Path) -> None:
    kept(path, [row(1)]).close()
    with sqlite3.connect(path) as database:
        database.execute("UPDATE decisions SET body = '{}'")
    with pytest.raises(LogError, match="KeyError"):
        list(read_log(path))


def test_damaged_features_are_told(path: Path) -> None:
    wanted = full_row()
    assert wanted.read is not None
    damaged = replace(wanted.read, packed=wanted.read.packed[:-9])
    with pytest.raises(ValueError, match="damaged"):
        damaged.features()


def test_a_log_is_its_owners_alone(path: Path) -> None:
    kept(path, [row(1)])
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_without_a_file_there_is_nothing_to_read(path: Path) -> None:
    assert list(read_log(path)) == []
    assert not path.exists()


def test_the_log_lies_in_the_home_folder_unless_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLLEGIUM_HOME", str(tmp_path))
    assert log_file(FeedbackConfig()) == tmp_path / "feedback" / "decisions.sqlite"
    assert log_file(FeedbackConfig(directory="/x")) == Path("/x/decisions.sqlite")


@pytest.mark.parametrize(
    ("seconds", "name"),
    [
        (0.0, "under_1s"),
        (0.999, "under_1s"),
        (1.0, "under_3s"),
        (9.9, "under_10s"),
        (10.0, "under_30s"),
        (30.0, "30s_or_more"),
        (1e6, "30s_or_more"),
    ],
)
def test_a_time_has_a_class(seconds: float, name: str) -> None:
    assert latency_class(seconds) is LatencyClass(name)


def test_a_new_file_that_another_process_opens_too_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / FILE
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN EXCLUSIVE")
    threading.Timer(0.3, lambda: other.execute("COMMIT")).start()
    started = time.monotonic()
    database = sqlite3.connect(path, timeout=5.0, isolation_level=None)
    _use_wal(database)
    assert time.monotonic() - started >= 0.2
    assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
