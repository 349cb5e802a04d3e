"""`collegium index add`: what it reads, what it says, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from test_retrieval_index import bag_of_words
from test_retrieval_readers import pdf

from orchestrator.cli.root import cli
from retrieval.folder import originals
from retrieval.index import Index

TESTS = Path(__file__).parent

SLOW = """
import signal, sys, time
from pathlib import Path
import orchestrator.cli.index_add as command
import retrieval.intake
from retrieval.index import Index
from test_retrieval_index import bag_of_words
from orchestrator.cli import main

# Whoever starts the tests in the background may have switched it off.
signal.signal(signal.SIGINT, signal.default_int_handler)

def encode(texts):
    print("encoding", flush=True)
    time.sleep(0.2)
    return bag_of_words(texts)

retrieval.intake.WRITTEN_TOGETHER = 2
root = Path(sys.argv.pop())
command.open_index = lambda _config: Index(root, encode)
main()
"""


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Index:
    """The index that the command opens, with a small encoder."""
    index = Index(tmp_path / "collections", bag_of_words)
    monkeypatch.setattr("orchestrator.cli.index_add.open_index", lambda _path: index)
    monkeypatch.setattr("orchestrator.cli.console.out.width", 200)
    return index


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "handbook"
    made.mkdir()
    (made / "leave.md").write_text("# Sick leave\n\nIt is paid.\n")
    (made / "pay.pdf").write_bytes(pdf("Pay day is the first."))
    return made


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, ["index", "add", *map(str, arguments), "--collection", "hr"])


def test_a_folder_is_added_and_told_in_one_line(opened: Index, folder: Path) -> None:
    done = run(folder, "--license", "CC0-1.0", "--lang", "en", "--base-url", "https://h/")
    assert done.exit_code == 0
    assert done.stdout.startswith("hr: 2 added files; 2 documents with 2 passages written in ")
    hit = opened.search("sick leave", None, ["hr"], 1)[0]
    assert (hit.license, hit.lang, hit.url) == ("CC0-1.0", "en", "https://h/leave.md")
    again = run(folder, "--license", "CC0-1.0", "--lang", "en", "--base-url", "https://h/")
    assert again.stdout.startswith("hr: 2 unchanged files; 0 documents")


def test_bad_files_are_told_at_the_end_and_the_rest_is_added(opened: Index, folder: Path) -> None:
    (folder / "empty.txt").write_text("")
    (folder / "[b].txt").write_bytes(b"\0")
    done = run(folder)
    assert done.exit_code == 1
    assert done.stdout.startswith("hr: 2 added, 2 failed files;")
    assert "  'empty.txt' is empty." in done.stderr
    assert "  '[b].txt' is binary" in done.stderr
    assert len(opened.documents("hr")) == 2


def test_json_tells_of_each_file(opened: Index, folder: Path) -> None:
    (folder / "empty.txt").write_text("")
    done = run(folder, "--json", "--metadata", "year=2024", "--metadata", "team=people ops")
    assert done.exit_code == 1
    body = json.loads(done.stdout)
    assert body["counts"] == {"added": 2, "failed": 1}
    assert (body["collection"], body["documents"], body["passages"]) == ("hr", 2, 2)
    told = {row["file"]: (row["outcome"], row["errors"]) for row in body["files"]}
    assert told["empty.txt"] == ("failed", ["'empty.txt' is empty."])
    assert told["pay.pdf"] == ("added", [])
    found = opened.document("hr", "leave.md").metadata
    assert found == {"year": 2024, "team": "people ops"}


def test_several_paths_and_patterns_choose_files(opened: Index, folder: Path) -> None:
    (folder / "draft.md").write_text("A draft.")
    (folder.parent / "note.txt").write_text("A note.")
    done = run(folder, folder.parent / "note.txt", "--exclude", "draft*", "--include", "*.md")
    assert done.exit_code == 0
    assert [info.id for info in opened.documents("hr")] == ["leave.md", "note.txt"]


def test_pruning_empties_a_collection_whose_folder_is_empty(opened: Index, folder: Path) -> None:
    run(folder)
    for file in folder.iterdir():
        file.unlink()
    assert run(folder).exit_code == 1
    done = run(folder, "--prune")
    assert done.exit_code == 0
    assert done.stdout.startswith("hr: 2 removed files;")
    assert opened.documents("hr") == []


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (("--metadata", "novalue"), 2, "KEY=VALUE"),
        (("--metadata", "a b=1"), 1, "cannot be a key"),
        (("--lang", "?"), 1, "language tag"),
        (("--include", "*.xyz"), 1, "no files that match"),
    ],
)
def test_wrong_options_are_told_before_anything_is_read(
    opened: Index, folder: Path, arguments: tuple[str, ...], code: int, reason: str
) -> None:
    done = run(folder, *arguments)
    assert (done.exit_code, opened.list()) == (code, [])
    assert reason in done.stderr


def test_an_interrupted_run_says_so_and_goes_on_later(tmp_path: Path) -> None:
    folder, root = tmp_path / "many", tmp_path / "collections"
    folder.mkdir()
    for n in range(40):
        (folder / f"f{n:02}.txt").write_text(f"Words of file {n}.")
    words = ["index", "add", str(folder), "--collection", "hr", str(root)]
    environment = {**os.environ, "PYTHONPATH": f"{TESTS.parent}:{TESTS}"}
    running = subprocess.Popen(
        [sys.executable, "-c", SLOW, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert running.stdout is not None
    for _ in range(6):
        assert running.stdout.readline() == "encoding\n"
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate()
    assert running.returncode == 130
    assert "the same command goes on from there" in errors
    index = Index(root, bag_of_words)
    before = len(index.documents("hr"))
    assert 2 <= before < 40
    results = index.ingest("hr", originals(folder))
    assert [str(r.outcome) for r in results].count("unchanged") == before
    assert len(index.documents("hr")) == 40
