"""Which file an id belongs to: nothing is lost when documents move between files."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pytest
from test_retrieval_index import bag_of_words

from retrieval import CollectionBusy, Document, FileResult, Index, Original, Outcome, originals


@pytest.fixture
def index(tmp_path: Path) -> Index:
    return Index(tmp_path / "index", bag_of_words)


def rows(name: str, *ids: str) -> Original:
    lines = [json.dumps({"id": id, "title": "T", "text": f"Text of {id}."}) for id in ids]
    return Original.of(name, "\n".join(lines).encode())


def upload(index: Index, *files: Original) -> list[FileResult]:
    return index.ingest("docs", files)


def stored(index: Index) -> list[tuple[str, str]]:
    return [(info.id, info.file) for info in index.documents("docs")]


def failures(results: Iterable[FileResult]) -> list[str]:
    return [error for result in results for error in result.errors]


def test_a_line_that_moves_to_a_later_file_is_kept(index: Index) -> None:
    upload(index, rows("x.jsonl", "1", "2"), rows("y.jsonl", "3"))
    moved = rows("x.jsonl", "2"), rows("y.jsonl", "1", "3")
    assert [result.outcome for result in upload(index, *moved)] == [Outcome.ADDED] * 2
    assert stored(index) == [("1", "y.jsonl"), ("2", "x.jsonl"), ("3", "y.jsonl")]
    assert [result.outcome for result in upload(index, *moved)] == [Outcome.UNCHANGED] * 2


def test_a_line_that_moves_to_an_earlier_file_is_told_until_it_is_given_up(index: Index) -> None:
    upload(index, rows("x.jsonl", "1"), rows("y.jsonl", "2", "3"))
    moved = rows("x.jsonl", "1", "2"), rows("y.jsonl", "3")
    first, second = upload(index, *moved)
    assert (first.outcome, second.outcome) == (Outcome.FAILED, Outcome.ADDED)
    assert "'2' is already that of 'y.jsonl'" in first.errors[0]
    assert upload(index, *moved)[0].outcome is Outcome.ADDED
    assert stored(index) == [("1", "x.jsonl"), ("2", "x.jsonl"), ("3", "y.jsonl")]


def test_what_was_uploaded_is_not_overwritten_by_another_upload(index: Index) -> None:
    upload(index, rows("a.jsonl", "1", "2"))
    (result,) = upload(index, rows("b.jsonl", "2", "3"))
    assert failures([result]) == [
        "'b.jsonl': the id '2' is already that of 'a.jsonl'. "
        "Remove that document first, or use another collection."
    ]
    assert stored(index) == [("1", "a.jsonl"), ("2", "a.jsonl"), ("3", "b.jsonl")]
    index.remove("docs", "2")
    assert upload(index, rows("b.jsonl", "2", "3"))[0].outcome is Outcome.ADDED


def test_a_folder_takes_over_what_was_uploaded_under_the_same_name(
    index: Index, tmp_path: Path
) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "a.md").write_text("Other words.")
    upload(index, Original.of("a.md", b"Some words."))
    assert not failures(index.ingest("docs", originals(folder)))
    assert index.document("docs", "a.md").text == "Other words."


def test_two_folders_with_the_same_name_are_told_apart(index: Index, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "README.md").write_text(f"The words of {name}.")
    a, b = (list(originals(tmp_path / name)) for name in "ab")
    for _ in range(2):
        results = index.ingest("docs", [*a, *b])
        assert [error.partition("README.md' in ")[2] for error in failures(results)] == [
            f"{str(tmp_path / 'a')!r}. Add their common parent folder, or use another collection."
        ]
        assert "of a" in index.document("docs", "README.md").text


def test_who_uploads_learns_no_folder_of_the_machine(index: Index, tmp_path: Path) -> None:
    folder = tmp_path / "private"
    folder.mkdir()
    (folder / "a.md").write_text("Some words.")
    index.ingest("docs", originals(folder))
    (error,) = failures(upload(index, Original.of("a.md", b"Other words.")))
    assert "is already that of 'a.md'." in error
    assert str(tmp_path) not in error
    assert index.document("docs", "a.md").text == "Some words."


def test_a_file_that_is_given_twice_is_added_once(index: Index, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").write_text("Some words.")
    twice = [*originals(tmp_path / "docs"), *originals(tmp_path / "docs" / "a.md")]
    outcomes = [result.outcome for result in index.ingest("docs", twice)]
    assert outcomes == [Outcome.ADDED, Outcome.UNCHANGED]
    results = upload(index, rows("b.jsonl", "1"), rows("b.jsonl", "2"))
    assert failures(results) == ["'b.jsonl' was given twice, with other bytes."]
    assert ("1", "b.jsonl") in stored(index)


def test_a_document_that_another_writer_removes_meanwhile_is_told(
    index: Index, tmp_path: Path
) -> None:
    upload(index, rows("a.jsonl", "1"))
    other = Index(tmp_path / "index", bag_of_words)

    given = [rows("b.jsonl", "2"), rows("a.jsonl", "1", "3")]

    def files() -> Iterable[Original]:
        yield from given
        other.remove("docs", "1")

    with pytest.raises(CollectionBusy, match="'1' of collection 'docs' was removed"):
        index.ingest("docs", files())
    assert stored(index) == []
    assert not failures(upload(index, *given))
    assert [id for id, _ in stored(index)] == ["1", "2", "3"]


def test_a_document_without_a_file_keeps_its_id_within_an_ingestion(index: Index) -> None:
    given = [Document("1", "One", "First words."), rows("a.jsonl", "1")]
    assert (
        "'1' is already that of a document that came without a file"
        in (failures(index.ingest("docs", given))[0])
    )


def test_a_document_without_a_file_does_not_take_a_files_id(index: Index, tmp_path: Path) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "a.md").write_text("Words of the folder.")
    index.ingest("docs", originals(folder))
    upload(index, rows("b.jsonl", "1"))
    sent = [Document("a.md", "", "Other words."), Document("1", "", "Other words.")]
    assert failures(index.ingest("docs", sent)) == [
        f"The id {id!r} is already that of {file!r}. "
        "Remove that document first, or use another collection."
        for id, file in (("a.md", "a.md"), ("1", "b.jsonl"))
    ]
    assert index.document("docs", "a.md").text == "Words of the folder."
    (folder / "a.md").unlink()
    assert not failures(index.ingest("docs", sent[:1]))
