"""The file of kept answers: who finds what, and what goes when there is too much."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from orchestrator.answer_rows import Entry, Lesson, StoreBounds
from orchestrator.answer_store import AnswerStore

WIDE = StoreBounds(rows=100, bytes=1_000_000, seconds=3600.0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "answers" / "answers.sqlite"


@pytest.fixture
def store(path: Path) -> Iterator[AnswerStore]:
    opened = AnswerStore(path, WIDE)
    yield opened
    opened.close()


def entry(key: str, body: str = "{}", tenant: str = "a") -> Entry:
    vector = np.array([1.0, 0.0], np.float32)
    return Entry(key, tenant, body, kin="k", vector=vector, sense="s", agreed=1.0)


def test_an_answer_is_found_by_its_tenant_alone(store: AnswerStore) -> None:
    store.keep(entry("one", "first"))
    assert store.find("one", "a") == "first"
    assert store.find("one", "b") is None
    assert store.find("two", "a") is None
    (number,), _ = store.relatives("k", "a", [])
    assert store.fetch(number, "a") == "first"
    assert store.fetch(number, "b") is None
    assert store.relatives("k", "b", []) == ([], [])


def test_two_processes_share_it(path: Path, store: AnswerStore) -> None:
    other = AnswerStore(path, WIDE)
    store.keep(entry("one", "first"))
    assert other.find("one", "a") == "first"
    other.keep(entry("one", "second"))
    assert store.find("one", "a") == "second"
    other.close()


def test_relatives_come_once_with_what_is_known_of_them(store: AnswerStore) -> None:
    store.keep(entry("one"))
    ids, new = store.relatives("k", "a", [])
    assert [(r.id, r.sense, r.agreed, r.vector.tolist()) for r in new] == [
        (ids[0], "s", 1.0, [1.0, 0.0])
    ]
    store.keep(entry("two"))
    both, new = store.relatives("k", "a", ids)
    assert [r.id for r in new] == [both[1]]
    # What is kept anew is another answer: what was held of the former one must go.
    store.keep(entry("one", "again"))
    assert ids[0] not in store.relatives("k", "a", [])[0]


def test_the_least_recently_used_go_first(path: Path) -> None:
    store = AnswerStore(path, replace(WIDE, rows=2))
    for key in ("one", "two"):
        store.keep(entry(key))
    assert store.find("one", "a") is not None
    store.keep(entry("three"))
    assert [store.find(key, "a") is None for key in ("one", "two", "three")] == [False, True, False]
    store.close()


def test_bytes_are_bounded(path: Path) -> None:
    store = AnswerStore(path, replace(WIDE, bytes=250))
    for number in range(9):
        store.keep(entry(str(number), "x" * 92))
    # Each of them takes 92 bytes and 8 of its vector.
    assert store.size() == (2, 200)
    store.close()


def test_what_is_too_old_is_not_found_and_goes(path: Path) -> None:
    store = AnswerStore(path, replace(WIDE, seconds=1000.0))
    store.keep(entry("one"))
    store.close()
    with sqlite3.connect(path) as database:
        database.execute("UPDATE answers SET at = ?", (time.time() - 1001,))
    assert store.find("one", "a") is None
    assert store.relatives("k", "a", []) == ([], [])
    store.keep(entry("two"))
    assert store.size()[0] == 1
    store.close()


def test_comparisons_are_a_tenants_own(store: AnswerStore) -> None:
    lesson = Lesson("k", "s", [1.0, 0.5], same=True)
    store.learn(lesson, "a")
    (found,) = store.lessons("a", 0)
    assert replace(found, id=0) == lesson
    assert store.lessons("a", found.id) == []
    assert store.lessons("b", 0) == []
    assert store.tally("k", "a") == [("s", True)]
    assert store.tally("k", "b") == []


def test_a_tenant_is_cleared_alone(store: AnswerStore) -> None:
    for tenant in ("a", "b"):
        store.keep(entry(f"of {tenant}", tenant=tenant))
        store.learn(Lesson("k", "s", [1.0], same=True), tenant)
    assert store.clear("a") == 1
    assert store.find("of a", "a") is None
    assert store.lessons("a", 0) == []
    assert store.find("of b", "b") == "{}"
    assert len(store.lessons("b", 0)) == 1
    assert store.clear(None) == 1


def test_a_file_that_was_taken_away_is_made_again(path: Path, store: AnswerStore) -> None:
    store.keep(entry("one"))
    for file in path.parent.iterdir():
        file.unlink()
    assert store.find("one", "a") is None
    store.keep(entry("two"))
    assert AnswerStore(path, WIDE).find("two", "a") == "{}"


def test_a_file_of_another_format_is_refused(path: Path, store: AnswerStore) -> None:
    store.keep(entry("one"))
    store.close()
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 99")
    with pytest.raises(sqlite3.DatabaseError, match="99"):
        store.find("one", "a")


def test_nobody_else_may_read_the_folder(path: Path, store: AnswerStore) -> None:
    store.keep(entry("one"))
    assert path.parent.stat().st_mode & 0o077 == 0
