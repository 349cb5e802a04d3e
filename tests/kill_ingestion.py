"""Ingest a folder again and again into one collection, each time killed somewhere on the way.

    python kill_ingestion.py FOLDER ROOT ROUNDS SEED

Each round a child ingests FOLDER and kills itself with SIGKILL at a line of the modules that
write, drawn by chance; what it reported before is read from a pipe. After each round the folder's
files are changed, so that there is always something to write. Ends after ROUNDS kills.
Prints a JSON object a round: what was acknowledged, whether the child was killed, and what SQLite
itself then finds in the file.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from types import FrameType
from typing import Any

from test_retrieval_index import bag_of_words

import retrieval.intake
from retrieval import FileResult, Index, originals

MODULES = ("store.py", "intake.py", "origins.py", "collection.py", "schema.py", "records.py")


def killing(step: int) -> Any:  # noqa: ANN401
    """A trace function that kills this process before the line of this number."""
    left = step

    def trace(frame: FrameType, event: str, _argument: object) -> Any:  # noqa: ANN401
        nonlocal left
        path = Path(frame.f_code.co_filename)
        if path.parent.name != "retrieval" or path.name not in MODULES:
            return None
        if event == "line":
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    return trace


def ingested(folder: Path, root: Path, step: int) -> tuple[bool, list[str]]:
    """Ingest in a child; tells whether it was killed, and which files it had acknowledged."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:

            def report(result: FileResult) -> None:
                os.write(writing, f"{result.file} {result.outcome}\n".encode())

            sys.settrace(killing(step))
            Index(root, bag_of_words).ingest("docs", originals(folder), report=report)
            os._exit(0)
        finally:
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        acknowledged = pipe.read().splitlines()
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status) and os.WEXITSTATUS(status) != 0:
        raise RuntimeError("an ingestion failed by itself")
    return os.WIFSIGNALED(status), acknowledged


def state(root: Path) -> dict[str, object]:
    """What the file holds: texts by id, and how many documents are not whole."""
    path = root / "docs" / "collection.sqlite"
    if not path.is_file():
        return {"check": "ok", "texts": {}, "halves": 0, "complete": []}
    with closing(sqlite3.connect(path)) as connection:
        ask = connection.execute
        texts = ask("SELECT id, text FROM documents d JOIN texts ON document = d.key").fetchall()
        halves = ask(
            "SELECT count(*) FROM documents d WHERE "
            "(SELECT count(*) FROM passages WHERE document = d.key) != "
            "(SELECT max(number) FROM passages WHERE document = d.key)"
        ).fetchone()[0]
        for table in ("vectors", "words"):
            key = "rowid" if table == "words" else "key"
            halves += ask(
                f"SELECT count(*) FROM passages p LEFT JOIN {table} t ON t.{key} = p.key "
                f"WHERE t.{key} IS NULL"
            ).fetchone()[0]
            halves += ask(
                f"SELECT count(*) FROM {table} WHERE {key} NOT IN (SELECT key FROM passages)"
            ).fetchone()[0]
        complete = ask("SELECT path FROM files WHERE sha256 != ''").fetchall()
        check = ask("PRAGMA integrity_check").fetchone()[0]
    return {
        "check": check,
        "texts": dict(texts),
        "halves": halves,
        "complete": [path for (path,) in complete],
    }


def main(folder: Path, root: Path, rounds: int, seed: int) -> None:
    retrieval.intake.WRITTEN_TOGETHER = 4
    draw = random.Random(seed)
    number = kills = 0
    while kills < rounds:
        number += 1
        for n in draw.sample(range(16), 8):
            text = f"Round {number} of file {n}.\n\n" + f"More words in file {n}. " * 40
            (folder / f"f{n}.txt").write_text(text)
        files = {path.name: path.read_text() for path in folder.iterdir()}
        was_killed, acknowledged = ingested(folder, root, draw.randrange(3_000))
        kills += was_killed
        row = {"killed": was_killed, "acknowledged": acknowledged, "files": files, **state(root)}
        sys.stdout.write(json.dumps(row) + "\n")
    ingested(folder, root, sys.maxsize)
    sys.stdout.write(json.dumps({"killed": False, "files": files, **state(root)}) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
