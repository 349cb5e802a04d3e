"""`collection_v1.sqlite.gz` was written by the code of version 1, with the encoder used here."""

import gzip
import hashlib
import shutil
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest
from test_retrieval_index import bag_of_words

from retrieval import CorruptCollection, Document, Index, TextFormat
from retrieval.schema import SEGMENT, VERSION

PACKED = Path(__file__).with_name("collection_v1.sqlite.gz")
SENTENCE = (
    "Sentence number {} of the long story, which is told for its length: größer als üblich.\n"
)
STORY = "".join(SENTENCE.format(n) for n in range(230))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder of collections with one of version 1."""
    (tmp_path / "old").mkdir()
    file = tmp_path / "old" / "collection.sqlite"
    with gzip.open(PACKED) as packed, file.open("wb") as unpacked:
        shutil.copyfileobj(packed, unpacked)
    return tmp_path


def rows(root: Path, statement: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(root / "old" / "collection.sqlite")) as connection:
        return connection.execute(statement).fetchall()


def test_an_old_collection_is_searched_as_before(root: Path) -> None:
    spans = "SELECT id, text, start, end FROM documents d JOIN passages ON document = d.key"
    before = rows(root, spans)
    assert rows(root, "PRAGMA user_version") == [(1,)]
    index = Index(root, bag_of_words)
    for number in (0, 115, 229):
        hits = index.search(str(number), None, ["old"], 99)
        (hit,) = (hit for hit in hits if hit.bm25 > 0)
        assert SENTENCE.format(number).strip() in hit.text
        assert hit.text == STORY[hit.start : hit.end]
        assert hit.line == STORY.count("\n", 0, hit.start) + 1
        assert (hit.page, hit.added) == (None, None)
    assert rows(root, "PRAGMA user_version") == [(VERSION,)]
    assert len(STORY) > SEGMENT
    after = {row[0]: index.document("old", str(row[0])).text for row in before}
    assert after == {row[0]: row[1] for row in before}
    assert {(h.start, h.end) for h in index.search("x", bag_of_words(["x"])[0], ["old"], 99)} == {
        (start, end) for _, _, start, end in before
    }


def test_a_vector_file_is_made_for_an_old_collection(root: Path) -> None:
    index = Index(root, bag_of_words)
    made = index.refresh("old")
    assert made is not None
    assert [(made.count,)] == rows(root, "SELECT count(*) FROM passages")
    assert index.vector_file("old") == made


def test_an_old_document_has_the_hash_of_its_text(root: Path) -> None:
    index = Index(root, bag_of_words)
    hit = index.search("harvested in autumn", None, ["old"], 1)[0]
    text = "Apples grow on trees.\n\nThey are harvested in autumn."
    assert hit.sha256 == hashlib.sha256(text.encode()).hexdigest()
    assert (hit.url, hit.license, hit.line) == ("u:apple", "CC0-1.0", 1)
    found = index.document("old", "guide.md")
    assert found == Document(
        "guide.md",
        "Guide",
        "# Guide\n\nIntro.\n\n## Install\n\nRun the installer.\n",
        format=TextFormat.MARKDOWN,
        source="guide.md",
    )


def test_what_did_not_change_since_is_not_written_again(root: Path) -> None:
    index = Index(root, bag_of_words)
    same = [Document("story", "Story", STORY), Document("last", "Last", "The last one of all.")]
    assert index.add("old", same) == 0
    assert index.add("old", [Document("last", "Last", "The very last one of all.")]) == 1


def test_a_writer_brings_it_up_to_date_as_well(root: Path) -> None:
    index = Index(root, bag_of_words)
    assert index.add("old", [Document("new", "New", "A new one after all.", lang="en")]) == 1
    assert rows(root, "PRAGMA user_version") == [(VERSION,)]
    assert index.search("new after all", None, ["old"], 1)[0].lang == "en"


def test_many_who_open_it_at_once_find_it_whole(root: Path) -> None:
    found: list[str] = []

    def search() -> None:
        hits = Index(root, bag_of_words).search("harvested in autumn", None, ["old"], 1)
        found.append(hits[0].document_id)

    threads = [threading.Thread(target=search) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["apple"] * 6


def test_a_migration_that_breaks_off_leaves_the_old_file(root: Path) -> None:
    with closing(sqlite3.connect(root / "old" / "collection.sqlite")) as connection:
        # A text that is none stops it in the middle.
        connection.execute("UPDATE documents SET text = x'ff00' WHERE id = 'last'")
        connection.commit()
    before = rows(root, "SELECT * FROM documents")
    with pytest.raises((TypeError, AttributeError)):
        Index(root, bag_of_words).list()
    assert rows(root, "PRAGMA user_version") == [(1,)]
    assert rows(root, "SELECT * FROM documents") == before


def test_a_file_of_a_later_version_is_refused(root: Path) -> None:
    with closing(sqlite3.connect(root / "old" / "collection.sqlite")) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(CorruptCollection, match="file version 99"):
        Index(root, bag_of_words).info("old")
