import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from test_retrieval_index import bag_of_words

from retrieval import Document, Index

REPOSITORY = Path(__file__).parent.parent

WRITER = """
import sys
from pathlib import Path
from retrieval import Document, Index
from test_retrieval_index import bag_of_words

root, prefix, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
documents = (
    Document(f"{prefix}{n}", "Title", f"{prefix} document word{n}. " * 30) for n in range(count)
)
for document in documents:
    Index(root, bag_of_words).add("shared", [document])
    print(document.id, flush=True)
"""


def start_writer(root: Path, prefix: str, count: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(root), prefix, str(count)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests'}"},
    )


def acknowledged(writer: subprocess.Popen[str], enough: int) -> list[str]:
    assert writer.stdout is not None
    return [writer.stdout.readline().strip() for _ in range(enough)]


def test_whatever_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    for round_number, enough in enumerate((1, 7, 20)):
        writer = start_writer(tmp_path, f"r{round_number}x", 100_000)
        known = acknowledged(writer, enough)
        os.kill(writer.pid, signal.SIGKILL)
        rest = writer.communicate()[0].split()
        assert writer.returncode == -signal.SIGKILL
        index = Index(tmp_path, bag_of_words)
        for name in [*known, *rest]:
            word = "word" + name.split("x")[1]
            hits = index.search(f"{name.split('x')[0]}x {word}", None, ["shared"], 50)
            assert name in {hit.document_id for hit in hits if hit.bm25 > 0}
        index.add("shared", [Document("after", "After", f"Round {round_number} goes on.")])


def test_two_processes_write_and_a_third_reads_meanwhile(tmp_path: Path) -> None:
    index = Index(tmp_path, bag_of_words)
    index.add("shared", [Document("first", "First", "The first document of all.")])
    writers = [start_writer(tmp_path, prefix, 12) for prefix in ("ax", "bx")]
    while any(writer.poll() is None for writer in writers):
        hits = index.search("first of all", None, ["shared"], 1)
        assert hits[0].document_id == "first"
    for writer in writers:
        assert len(writer.communicate()[0].split()) == 12
        assert writer.returncode == 0
    info = index.list()[0]
    assert info.documents == 25
    assert index.search("bx word7", None, ["shared"], 50)


def test_a_half_made_collection_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "fruit").mkdir()
    (tmp_path / "fruit" / "collection.new").write_bytes(b"left over from a crash")
    index = Index(tmp_path, bag_of_words)
    assert index.list() == []
    index.add("fruit", [Document("a", "A", "Apples grow on trees.")])
    assert [info.documents for info in index.list()] == [1]


def test_twenty_kills_in_the_middle_lose_nothing_and_leave_no_halves(tmp_path: Path) -> None:
    folder, root = tmp_path / "folder", tmp_path / "root"
    folder.mkdir()
    script = REPOSITORY / "tests" / "kill_ingestion.py"
    done = subprocess.run(
        [sys.executable, str(script), str(folder), str(root), "20", "7"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests'}"},
    )
    *rounds, last = [json.loads(line) for line in done.stdout.splitlines()]
    assert sum(row["killed"] for row in rounds) == 20
    assert sum(row["killed"] and bool(row["acknowledged"]) for row in rounds) >= 5
    known: dict[str, str] = {}
    for row in rounds:
        assert (row["check"], row["halves"]) == ("ok", 0)
        for line in row["acknowledged"]:
            name, outcome = line.split()
            assert outcome in ("added", "unchanged")
            known[name] = row["files"][name]
            assert name in row["complete"]
        # What was acknowledged is there as it was then, or as its file is now.
        for name, text in known.items():
            assert row["texts"][name] in (text, row["files"][name])
        known = {name: row["texts"][name] for name in known}
        for name in row["complete"]:
            assert name in row["texts"]
    assert last["texts"] == last["files"]
    assert (last["check"], last["halves"]) == ("ok", 0)
