import hashlib
import io
import json
import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from test_retrieval_index import bag_of_words
from test_retrieval_readers import pdf, word

from retrieval import (
    Document,
    FileResult,
    Index,
    InvalidDocument,
    Labels,
    MissingDocument,
    Original,
    Outcome,
    UnreadableSource,
    originals,
)
from retrieval.schema import SEGMENT


class Counting:
    """The small encoder, which notes what it was asked for."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def __call__(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        self.texts += texts
        return bag_of_words(texts)


@pytest.fixture
def encoder() -> Counting:
    return Counting()


@pytest.fixture
def index(tmp_path: Path, encoder: Counting) -> Index:
    return Index(tmp_path / "index", encoder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "docs"
    (made / "sub").mkdir(parents=True)
    (made / "fruit.md").write_text("# Fruit\n\nApples grow on trees.\n\n## Stones\n\nCherries.\n")
    (made / "sub" / "shelf.py").write_text("def sort(books):\n    return sorted(books)\n")
    (made / "report.pdf").write_bytes(pdf("Summary page.", "The harvest was plentiful."))
    (made / "hand.docx").write_bytes(word())
    return made


def outcomes(results: Sequence[FileResult]) -> dict[str, str]:
    return {result.file: str(result.outcome) for result in results}


def ingest(index: Index, folder: Path, **more: object) -> list[FileResult]:
    return index.ingest("docs", originals(folder), **more)  # type: ignore[arg-type]


def lines(path: Path, *rows: object) -> None:
    text = "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows)
    path.write_text(text + "\n")


def row(id: str, text: str = "Some text of it.", **more: object) -> dict[str, object]:
    return {"id": id, "title": "T", "text": text, **more}


def test_a_passage_knows_where_it_comes_from(index: Index, folder: Path) -> None:
    labels = Labels(license="CC-BY-4.0", lang="en", metadata={"year": 2024, "draft": False})
    results = ingest(index, folder, labels=labels)
    assert set(outcomes(results).values()) == {"added"}
    hit = index.search("plentiful harvest", None, ["docs"], 1)[0]
    data = (folder / "report.pdf").read_bytes()
    assert (hit.file, hit.page, hit.license, hit.lang) == ("report.pdf", 2, "CC-BY-4.0", "en")
    assert hit.sha256 == hashlib.sha256(data).hexdigest()
    assert hit.added is not None and hit.added > 1_700_000_000
    document = index.document("docs", "report.pdf")
    assert document.text[hit.start : hit.end] == hit.text
    assert document.metadata == {"year": 2024, "draft": False}
    stones = index.search("cherries stones", None, ["docs"], 1)[0]
    assert (stones.file, stones.line, stones.page) == ("fruit.md", 5, None)
    assert stones.text == "## Stones\n\nCherries."


def test_files_that_did_not_change_are_not_read_again(
    index: Index, folder: Path, encoder: Counting
) -> None:
    ingest(index, folder)
    encoded = len(encoder.texts)
    for name in ("report.pdf", "hand.docx"):
        os.utime(folder / name)
    (folder / "fruit.md").write_text("# Fruit\n\nPears grow on trees, too.\n")
    assert outcomes(ingest(index, folder)) == {
        "fruit.md": "added",
        "hand.docx": "unchanged",
        "report.pdf": "unchanged",
        "sub/shelf.py": "unchanged",
    }
    assert len(encoder.texts) == encoded + 1
    assert index.search("apples", None, ["docs"], 1)[0].bm25 == 0.0


def test_other_labels_are_taken_over(index: Index, folder: Path) -> None:
    ingest(index, folder)
    assert ingest(index, folder, labels=Labels(license="CC0-1.0"))[0].outcome is Outcome.ADDED
    assert index.search("apples", None, ["docs"], 1)[0].license == "CC0-1.0"


def test_the_same_text_in_other_bytes_is_only_noted(
    index: Index, folder: Path, encoder: Counting
) -> None:
    ingest(index, folder)
    encoded = len(encoder.texts)
    data = b"\xef\xbb\xbf" + (folder / "fruit.md").read_bytes()
    (folder / "fruit.md").write_bytes(data)
    result = ingest(index, folder)[0]
    assert (result.outcome, result.documents) == (Outcome.ADDED, 0)
    assert len(encoder.texts) == encoded
    hit = index.search("apples", None, ["docs"], 1)[0]
    assert hit.sha256 == hashlib.sha256(data).hexdigest()


def test_documents_that_a_file_no_longer_holds_are_removed(index: Index, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    lines(file, row("a", "Alpha beta."), row("b", "Gamma delta.", lang="de", metadata={"n": 1}))
    assert ingest(index, file)[0].documents == 2
    lines(file, row("c", "Epsilon."), row("b", "Gamma delta.", lang="de", metadata={"n": 1}))
    assert ingest(index, file)[0].documents == 1
    assert [info.id for info in index.documents("docs")] == ["b", "c"]
    held = index.document("docs", "b")
    assert (held.lang, held.metadata, held.file) == ("de", {"n": 1}, "rows.jsonl")
    line = json.dumps(row("b", "Gamma delta.", lang="de", metadata={"n": 1}))
    assert held.sha256 == hashlib.sha256(line.encode()).hexdigest()
    with pytest.raises(MissingDocument):
        index.document("docs", "a")


def test_bad_lines_are_named_and_the_good_ones_are_in(index: Index, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    bad = ["{", "[1]", '{"id": "x"}', '{"id": "y", "title": 1, "text": "t"}', '"\\ud800"']
    lines(file, row("a"), *bad, row("a"), row("b", " "), row("z", metadata={"k": [1]}), row("c"))
    (result,) = ingest(index, file)
    assert (result.outcome, result.documents) == (Outcome.FAILED, 2)
    reasons = ["not a JSON", "not list", "'title' is miss", "'title' must", "not str"]
    reasons += ["'a' is already that of another document", "no text", "Metadata 'k'"]
    assert len(result.errors) == len(reasons)
    for error, reason in zip(result.errors, reasons, strict=True):
        assert reason in error
        assert "rows.jsonl" in error
    assert [info.id for info in index.documents("docs")] == ["a", "c"]


def test_of_many_errors_some_are_told_and_the_rest_counted(index: Index, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    lines(file, *["{"] * 50)
    (result,) = ingest(index, file)
    assert len(result.errors) == 21
    assert result.errors[-1] == "and 30 more errors"


def test_an_id_belongs_to_one_file(index: Index, tmp_path: Path) -> None:
    for name in ("one.jsonl", "two.jsonl"):
        lines(tmp_path / name, row("same", f"Text of {name}."))
    for _ in range(2):
        one, two = ingest(index, tmp_path / "one.jsonl") + ingest(index, tmp_path / "two.jsonl")
        assert two.outcome is Outcome.FAILED
        assert "'same' is already that of 'one.jsonl'" in two.errors[0]
        assert index.document("docs", "same").file == "one.jsonl"
    (tmp_path / "one.jsonl").unlink()
    assert ingest(index, tmp_path / "two.jsonl")[0].outcome is Outcome.ADDED
    assert index.document("docs", "same").file == "two.jsonl"


def test_a_removed_document_comes_back_with_its_file(index: Index, folder: Path) -> None:
    ingest(index, folder)
    index.remove("docs", "fruit.md")
    assert outcomes(ingest(index, folder))["fruit.md"] == "added"


def test_pruning_removes_what_is_gone_from_the_folder(
    index: Index, folder: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "kept.md").write_text("Kept words.")
    index.ingest("docs", originals(other))
    index.add("docs", [Document("own", "Own", "Added without a file.")])
    ingest(index, folder)
    (folder / "report.pdf").unlink()
    assert "report.pdf" not in outcomes(ingest(index, folder))
    results = ingest(index, folder, prune=[folder])
    assert outcomes(results)["report.pdf"] == "removed"
    ids = [info.id for info in index.documents("docs")]
    assert ids == ["fruit.md", "hand.docx", "kept.md", "own", "sub/shelf.py"]
    assert all(r.outcome is not Outcome.REMOVED for r in ingest(index, folder, prune=[folder]))


def test_every_bad_file_is_told_and_the_rest_goes_on(index: Index, folder: Path) -> None:
    (folder / "a-broken.pdf").write_bytes(b"%PDF-1.7\nnothing else")
    (folder / "binary.txt").write_bytes(b"\0\1\2")
    (folder / "empty.md").write_bytes(b"")
    (folder / "mixed.txt").write_bytes("Größe\n".encode() + b"Gr\xf6\xdfe\n")
    (folder / "sub" / "__init__.py").write_bytes(b"")
    results = ingest(index, folder)
    assert outcomes(results) == {
        "a-broken.pdf": "failed",
        "binary.txt": "failed",
        "empty.md": "failed",
        "fruit.md": "added",
        "hand.docx": "added",
        "mixed.txt": "failed",
        "report.pdf": "added",
        "sub/__init__.py": "empty",
        "sub/shelf.py": "added",
    }
    for result in results:
        assert bool(result.errors) == (result.outcome is Outcome.FAILED)
        assert all(result.file in error for error in result.errors)


def test_names_from_outside_touch_no_file(index: Index, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    names = ["../../etc/passwd", "/etc/passwd", "a\0b", "notes.md"]
    files: list[Original | UnreadableSource] = []
    for name in names:
        try:
            files.append(Original.of(name, b"Some words."))
        except UnreadableSource as error:
            files.append(error)
    results = index.ingest("docs", files)
    assert [r.outcome for r in results] == [Outcome.FAILED] * 3 + [Outcome.ADDED]
    assert "'../../etc/passwd' cannot name a file" in results[0].errors[0]
    made = {path.name.partition(".sqlite")[0] for path in set(tmp_path.rglob("*")) - set(before)}
    assert made == {"index", "docs", ".docs.lock", "collection"}


def test_a_long_text_is_read_in_parts(index: Index, tmp_path: Path) -> None:
    sentence = "Die Größe von Satz {} ist üblich.\n"
    text = "".join(sentence.format(n) for n in range(4 * SEGMENT // len(sentence)))
    (tmp_path / "long.txt").write_text(text)
    seen: list[int] = []
    (result,) = ingest(index, tmp_path / "long.txt", encoded=seen.append)
    assert sum(seen) == result.passages > 40
    assert index.document("docs", "long.txt").text == text
    hits = index.search("größe", None, ["docs"], result.passages)
    assert len(hits) == result.passages
    for hit in hits:
        assert hit.text == text[hit.start : hit.end]
        assert hit.line == text.count("\n", 0, hit.start) + 1


def test_a_file_over_the_limit_is_refused(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retrieval.original.LARGEST_FILE", 1000)
    (tmp_path / "large.txt").write_text("word " * 201)
    lines(tmp_path / "rows.jsonl", *(row(str(n)) for n in range(40)))
    results = index.ingest("docs", originals(tmp_path, include=["*.txt", "*.jsonl"]))
    assert "'large.txt' has more than" in results[0].errors[0]
    assert (results[1].outcome, results[1].documents) == (Outcome.ADDED, 40)


def test_documents_and_files_are_told_in_their_order_once_they_are_on_disk(
    index: Index, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retrieval.intake.WRITTEN_TOGETHER", 2)
    path = tmp_path / "index" / "docs" / "collection.sqlite"
    told: list[str] = []

    def report(result: FileResult) -> None:
        with closing(sqlite3.connect(path)) as connection:
            found = connection.execute("SELECT id FROM documents").fetchall()
        told.append(result.file)
        assert (result.file,) in found

    given = [Document("one", "One", "First words."), *originals(folder)]
    results = index.ingest("docs", [*given, Document("one", "One", "Again.")], report=report)
    assert told[:2] == ["one", "fruit.md"]
    assert results[-1].errors == ("The id 'one' was given twice.",)


def test_globs_choose_files(folder: Path) -> None:
    (folder / "image.png").write_bytes(b"\x89PNG\0")
    (folder / ".hidden.md").write_text("x")
    (folder / "link.md").symlink_to("/etc/passwd")

    def names(**more: list[str]) -> list[str]:
        return [file.name for file in originals(folder, **more) if isinstance(file, Original)]

    assert names() == ["fruit.md", "hand.docx", "report.pdf", "sub/shelf.py"]
    assert names(exclude=["*.pdf", "sub/*"]) == ["fruit.md", "hand.docx"]
    assert names(include=["*.md", "image.*"]) == ["fruit.md", "image.png"]
    assert names(include=["sub/*"]) == ["sub/shelf.py"]
    with pytest.raises(UnreadableSource, match=r"that match \*\.xyz"):
        names(include=["*.xyz"])


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"lang": "not a tag"}, "language tag"),
        ({"metadata": {"k": None}}, "'k' must be"),
        ({"metadata": {"": 1}}, "cannot be a key"),
        ({"metadata": {"k": float("nan")}}, "finite"),
        ({"metadata": {"k": 2**70}}, "63 bits"),
        ({"metadata": {"k": "x" * 1001}}, "1001 characters"),
        ({"metadata": {f"k{n}": n for n in range(65)}}, "at most 64"),
    ],
)
def test_labels_that_cannot_be_kept_are_refused(said: dict[str, object], reason: str) -> None:
    with pytest.raises(InvalidDocument, match=reason):
        Labels(**said)  # type: ignore[arg-type]


def test_pages_must_ascend_within_the_text() -> None:
    for pages in (((5, 1), (2, 2)), ((0, 1), (99, 2)), ((-1, 1),)):
        with pytest.raises(InvalidDocument, match="do not ascend"):
            Document("a", "A", "Some text.", pages=pages)


def test_an_upload_is_read_as_often_as_needed(index: Index) -> None:
    opened: list[io.BytesIO] = []

    def opener() -> io.BytesIO:
        opened.append(io.BytesIO(b"# Title\n\nWords."))
        return opened[-1]

    (result,) = index.ingest("docs", [Original("a.md", opener)])
    assert result.outcome is Outcome.ADDED
    assert all(handle.closed for handle in opened)
    assert index.document("docs", "a.md").title == "Title"
