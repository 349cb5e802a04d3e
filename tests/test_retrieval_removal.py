"""Collections that are removed, broken or busy: gone for good, and in nobody's way."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from filelock import FileLock
from test_retrieval_index import FRUIT, bag_of_words

from retrieval import Document, Index, MissingCollection, Original, StorageFailed
from retrieval.checked_encoder import PROBE
from retrieval.collection import CollectionWriter
from retrieval.openings import Openings
from retrieval.vector_build import VectorPlan
from retrieval.vector_keeper import VectorKeeper


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "index"


@pytest.fixture
def index(root: Path) -> Index:
    made = Index(root, bag_of_words)
    made.add("fruit", FRUIT)
    return made


def break_one(root: Path) -> None:
    (root / "broken").mkdir()
    (root / "broken" / "collection.sqlite").write_bytes(b"not a database, but long enough" * 40)


def test_a_broken_collection_hides_no_other(
    index: Index, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    break_one(root)
    with caplog.at_level(logging.WARNING):
        assert [info.name for info in index.list()] == ["fruit"]
    assert "'broken' is damaged" in caplog.text


def test_only_the_collections_that_are_asked_for_are_opened(
    index: Index, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    break_one(root)
    index.add("tools", [Document("saw", "Saws", "A saw cuts.")])
    with caplog.at_level(logging.WARNING):
        assert [info.name for info in index.list({"fruit", "absent"})] == ["fruit"]
    assert not caplog.records


def test_of_two_who_remove_a_collection_the_second_is_told(
    index: Index, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def held_later(_lock: FileLock, _name: str) -> Iterator[None]:
        # Whoever held the lock before was there to remove it, too.
        (root / "fruit").rename(root / "elsewhere")
        yield

    monkeypatch.setattr("retrieval.removal.held", held_later)
    with pytest.raises(MissingCollection, match="no collection 'fruit'"):
        index.remove("fruit")


def test_a_collection_that_is_removed_while_it_is_filled_does_not_come_back(
    index: Index, root: Path
) -> None:
    def files() -> Iterator[Original]:
        yield Original.of("a.txt", b"Some words.")
        Index(root, bag_of_words).remove("fruit")
        yield Original.of("b.txt", b"Other words.")

    with pytest.raises(MissingCollection, match="removed while it was filled"):
        index.ingest("fruit", files())
    assert index.list() == []


def test_a_collection_that_is_made_anew_gets_nothing_of_the_former_filling(
    index: Index, root: Path
) -> None:
    other = Index(root, bag_of_words)

    def documents() -> Iterator[Document]:
        yield Document("a", "A", "Some words.")
        other.remove("fruit")
        other.add("fruit", [Document("new", "New", "New words.")])

    with pytest.raises(MissingCollection, match="removed while it was filled"):
        index.add("fruit", documents())
    assert [info.id for info in index.documents("fruit")] == ["new"]


def test_removing_a_document_makes_no_collection(root: Path) -> None:
    root.mkdir()
    writer = CollectionWriter(root, "fruit", bag_of_words([PROBE])[0])
    with pytest.raises(MissingCollection):
        writer.delete("apple")
    assert not (root / "fruit").exists()


@pytest.mark.parametrize("act", ["remove", "add"])
def test_what_a_killed_removal_left_is_swept(index: Index, root: Path, act: str) -> None:
    grave = root / ".removed-0123"
    grave.mkdir()
    (grave / "collection.sqlite").write_bytes(b"secret")
    if act == "remove":
        index.remove("fruit")
    else:
        index.add("fruit", [Document("date", "Dates", "Dates grow on palms.")])
    assert not list(root.glob(".removed-*"))


def test_the_bytes_of_a_removed_document_are_overwritten(index: Index, root: Path) -> None:
    text = "The Merger of Acme and Umbra is planned for Winter. " * 40
    index.add("fruit", [Document("secret", "", text), Document("kept", "", "Kept for Winter.")])
    index.remove("fruit", "secret")
    index.close()
    held = b"".join(path.read_bytes() for path in (root / "fruit").iterdir())
    assert b"Kept for Winter." in held
    assert b"Merger of Acme" not in held


def test_a_removed_collection_is_let_go_of(index: Index, root: Path) -> None:
    openings = Openings(root, lambda: bag_of_words([PROBE])[0])
    held = openings.get("fruit")
    openings.forget("fruit")
    assert openings.get("fruit") is not held


def test_figures_of_a_collection_that_was_removed_meanwhile_are_missing(
    index: Index, root: Path
) -> None:
    held = Openings(root, lambda: bag_of_words([PROBE])[0]).get("fruit")
    index.remove("fruit")
    with pytest.raises(MissingCollection, match="no collection 'fruit'"):
        held.info()


def test_a_weight_is_not_written_into_a_collection_that_was_removed(
    index: Index, root: Path
) -> None:
    index.remove("fruit")
    writer = CollectionWriter(root, "fruit", bag_of_words([PROBE])[0])
    with pytest.raises(MissingCollection, match="no collection 'fruit'"):
        writer.note("fusion", None)
    assert not (root / "fruit").exists()


def test_a_vector_file_of_a_broken_collection_is_told_and_raises_nothing(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root.mkdir()
    break_one(root)
    with caplog.at_level(logging.WARNING):
        VectorKeeper(root, VectorPlan()).look_after("broken")
    assert "'broken' was not made" in caplog.text


def test_a_collection_that_cannot_be_opened_yet_keeps_nobody_from_others(
    index: Index, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.add("tools", [Document("saw", "Saws", "A saw cuts.")])
    slow, goes_on = threading.Event(), threading.Event()

    def bring_up_to_date(_root: Path, name: str, _path: Path) -> None:
        if name == "fruit":
            slow.set()
            assert goes_on.wait(30)

    monkeypatch.setattr("retrieval.collection._bring_up_to_date", bring_up_to_date)
    openings = Openings(root, lambda: bag_of_words([PROBE])[0])
    opening = threading.Thread(target=openings.get, args=("fruit",))
    opening.start()
    assert slow.wait(30)
    others: list[str] = []
    other = threading.Thread(target=lambda: others.append(openings.get("tools").name))
    other.start()
    other.join(20)
    opened = list(others)
    goes_on.set()
    opening.join()
    other.join()
    assert opened == ["tools"]


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageFailed, match="'fruit' cannot be read or written"):
        Index(tmp_path / "file" / "index", bag_of_words).add("fruit", FRUIT)


def test_a_lock_that_cannot_be_made_is_told(index: Index, root: Path) -> None:
    (root / ".tools.lock").mkdir()
    with pytest.raises(StorageFailed, match="'tools' cannot be read or written"):
        index.add("tools", FRUIT)
