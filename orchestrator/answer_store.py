"""The file of kept answers: one SQLite database, bounded in rows, bytes and age.

Several gateway processes of one machine may share it. It is a cache: what was written last may be
lost with the machine's power, never half of it kept. No row is found without its tenant.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from experts.store import default_home
from orchestrator.answer_rows import Entry, Lesson, Relative, StoreBounds
from orchestrator.cache_config import CacheConfig
from orchestrator.hit_policy import REMEMBERED

FILE = "answers.sqlite"
_FORMAT = 1
_PATIENCE = 5.0
_SCHEMA = """
CREATE TABLE answers (
    id INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL UNIQUE, tenant TEXT NOT NULL,
    kin TEXT, vector BLOB, sense TEXT NOT NULL, agreed REAL NOT NULL, body TEXT NOT NULL,
    bytes INTEGER NOT NULL, at REAL NOT NULL, used REAL NOT NULL
);
CREATE INDEX answers_kin ON answers (kin) WHERE kin IS NOT NULL;
CREATE INDEX answers_used ON answers (used);
CREATE INDEX answers_at ON answers (at);
CREATE TABLE lessons (
    id INTEGER PRIMARY KEY AUTOINCREMENT, tenant TEXT NOT NULL, kin TEXT NOT NULL,
    sense TEXT NOT NULL, features TEXT NOT NULL, same INTEGER NOT NULL
);
CREATE INDEX lessons_tenant ON lessons (tenant, id);
"""


def answers_file(settings: CacheConfig) -> Path:
    """Where the kept answers of a service lie."""
    folder = settings.directory
    return (Path(folder) if folder else default_home() / "answers") / FILE


def open_answers(settings: CacheConfig) -> AnswerStore:
    """The file that the configuration names."""
    bounds = StoreBounds(settings.max_entries, settings.max_bytes, settings.max_age_s)
    return AnswerStore(answers_file(settings), bounds)


class AnswerStore:
    """Reads and writes the file in `path`; not for several threads.

    Raises:
        sqlite3.Error, OSError: the file cannot be used.
    """

    def __init__(self, path: Path, bounds: StoreBounds) -> None:
        self._path, self._bounds = path, bounds
        self._database: sqlite3.Connection | None = None
        self._inode = 0

    def find(self, key: str, tenant: str) -> str | None:
        """The body that is kept under a key, which counts as a use."""
        return self._use("key = ?", key, tenant)

    def fetch(self, id: int, tenant: str) -> str | None:
        """The body of one answer by its id, which counts as a use."""
        return self._use("id = ?", id, tenant)

    def relatives(
        self, kin: str, tenant: str, known: Sequence[int]
    ) -> tuple[list[int], list[Relative]]:
        """The ids of all answers of this kin, and those that are not among the ids `known`."""
        with self._transaction() as database:
            where = "FROM answers WHERE kin = ? AND tenant = ? AND at >= ? ORDER BY id"
            given = (kin, tenant, self._oldest())
            ids = [row[0] for row in database.execute(f"SELECT id {where}", given)]
            new = sorted(set(ids) - set(known))
            marks = ", ".join(str(int(number)) for number in new)
            rows = database.execute(
                f"SELECT id, vector, sense, agreed FROM answers WHERE id IN ({marks}) ORDER BY id"
            )
            found = [Relative(r[0], np.frombuffer(r[1], np.float32), r[2], r[3]) for r in rows]
        return ids, found

    def keep(self, entry: Entry) -> None:
        """Keep an answer in place of what is there under its key; others may have to go.

        It gets an id of its own.
        """
        now, size = time.time(), len(entry.body.encode())
        vector = None if entry.vector is None else entry.vector.astype(np.float32).tobytes()
        with self._transaction() as database:
            database.execute(
                "INSERT OR REPLACE INTO answers "
                "(key, tenant, kin, vector, sense, agreed, body, bytes, at, used) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(entry.key, entry.tenant, entry.kin, vector, entry.sense),
                    *(entry.agreed, entry.body, size + (len(vector) if vector else 0), now, now),
                ),
            )
            self._prune(database)

    def learn(self, lesson: Lesson, tenant: str) -> None:
        """Keep a comparison; of one tenant the latest `REMEMBERED` stay."""
        features, same = json.dumps(list(lesson.features)), int(lesson.same)
        with self._transaction() as database:
            database.execute(
                "INSERT INTO lessons (tenant, kin, sense, features, same) VALUES (?, ?, ?, ?, ?)",
                (tenant, lesson.kin, lesson.sense, features, same),
            )
            database.execute(
                "DELETE FROM lessons WHERE tenant = ? AND id <= "
                "(SELECT id FROM lessons WHERE tenant = ? ORDER BY id DESC LIMIT 1 OFFSET ?)",
                (tenant, tenant, REMEMBERED),
            )

    def lessons(self, tenant: str, after: int) -> list[Lesson]:
        """The comparisons of a tenant behind the id `after`, oldest first."""
        with self._transaction() as database:
            rows = database.execute(
                "SELECT kin, sense, features, same, id FROM lessons "
                "WHERE tenant = ? AND id > ? ORDER BY id",
                (tenant, after),
            ).fetchall()
        return [Lesson(r[0], r[1], json.loads(r[2]), bool(r[3]), r[4]) for r in rows]

    def tally(self, kin: str, tenant: str) -> list[tuple[str, bool]]:
        """The comparisons of one kin: sense, and whether it was the same."""
        with self._transaction() as database:
            rows = database.execute(
                "SELECT sense, same FROM lessons WHERE tenant = ? AND kin = ?", (tenant, kin)
            ).fetchall()
        return [(sense, bool(same)) for sense, same in rows]

    def clear(self, tenant: str | None) -> int:
        """Let go of a tenant's answers and comparisons, or of all; returns how many answers."""
        with self._transaction() as database:
            given = (tenant, tenant)
            gone = database.execute("DELETE FROM answers WHERE tenant = ? OR ? IS NULL", given)
            database.execute("DELETE FROM lessons WHERE tenant = ? OR ? IS NULL", given)
        return gone.rowcount

    def size(self) -> tuple[int, int]:
        """How many answers there are, and their bytes."""
        with self._transaction() as database:
            return _size(database)

    def close(self) -> None:
        """Close the file; the next question opens it again."""
        if self._database is not None:
            self._database.close()
            self._database = None

    def _use(self, condition: str, value: str | int, tenant: str) -> str | None:
        with self._transaction() as database:
            row = database.execute(
                f"SELECT id, body FROM answers WHERE {condition} AND tenant = ? AND at >= ?",
                (value, tenant, self._oldest()),
            ).fetchone()
            if row is None:
                return None
            database.execute("UPDATE answers SET used = ? WHERE id = ?", (time.time(), row[0]))
        return str(row[1])

    def _oldest(self) -> float:
        return time.time() - self._bounds.seconds

    def _prune(self, database: sqlite3.Connection) -> None:
        """Let go of what is too old, then of what was not used for longest."""
        database.execute("DELETE FROM answers WHERE at < ?", (self._oldest(),))
        rows, size = _size(database)
        if rows <= self._bounds.rows and size <= self._bounds.bytes:
            return
        order = "OVER (ORDER BY used DESC, id DESC)"
        database.execute(
            f"DELETE FROM answers WHERE id IN (SELECT id FROM (SELECT id, sum(bytes) {order} "
            f"AS total, row_number() {order} AS place FROM answers) WHERE total > ? OR place > ?)",
            (self._bounds.bytes, self._bounds.rows),
        )

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        whole = False
        try:
            database = self._open()
            database.execute("BEGIN IMMEDIATE")
            yield database
            database.execute("COMMIT")
            whole = True
        finally:
            if not whole:
                self.close()

    def _open(self) -> sqlite3.Connection:
        if self._database is not None and self._inode != _inode(self._path):
            # The file was deleted: what is written there now, nobody would find.
            self.close()
        if self._database is None:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._database = _connect(self._path)
            self._inode = _inode(self._path)
        return self._database


def _connect(path: Path) -> sqlite3.Connection:
    # Without a level of its own, Python opens transactions by itself. Used by one thread at a
    # time, which may be another one when the process ends.
    database = sqlite3.connect(
        path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False
    )
    for setting in ("journal_mode = WAL", "synchronous = NORMAL", "secure_delete = ON"):
        database.execute(f"PRAGMA {setting}")
    database.execute("BEGIN IMMEDIATE")
    (found,) = database.execute("PRAGMA user_version").fetchone()
    if found == 0:
        for statement in _SCHEMA.split(";"):
            database.execute(statement)
        database.execute(f"PRAGMA user_version = {_FORMAT}")
    database.execute("COMMIT")
    if found not in (0, _FORMAT):
        database.close()
        raise sqlite3.DatabaseError(f"its format is {found}, this program reads {_FORMAT}")
    return database


def _size(database: sqlite3.Connection) -> tuple[int, int]:
    rows, size = database.execute(
        "SELECT count(*), coalesce(sum(bytes), 0) FROM answers"
    ).fetchone()
    return int(rows), int(size)


def _inode(path: Path) -> int:
    try:
        return os.stat(path).st_ino
    except FileNotFoundError:
        return 0
