"""The log of decisions: one SQLite file, bounded in rows and age, that survives a kill.

Several processes of one machine may write to it at a time, each through a log of its own. What a
transaction wrote is on disk when it ends: the write-ahead log is synced at every commit.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from experts.store import default_home
from orchestrator.config import FeedbackConfig
from orchestrator.decision_row import from_columns, provenance_body, to_columns
from router.logged_decision import LoggedDecision, Opinion
from router.provenance import Provenance

FILE = "decisions.sqlite"
_FORMAT = 1
_PATIENCE = 5.0
_PAUSE = 0.01
_DAY = 86_400.0

_TABLE = """
CREATE TABLE IF NOT EXISTS decisions (
    id TEXT PRIMARY KEY, tenant TEXT NOT NULL, at REAL NOT NULL, version TEXT NOT NULL,
    confidence REAL NOT NULL, body TEXT NOT NULL, features BLOB, text TEXT,
    latency TEXT, stood_in INTEGER NOT NULL,
    score REAL, expert TEXT, comment TEXT, opinion_at REAL, rated INTEGER NOT NULL DEFAULT 0
)
"""
_INDEXES = (
    "CREATE INDEX IF NOT EXISTS by_time ON decisions (at)",
    "CREATE INDEX IF NOT EXISTS by_worth ON decisions (rated, at)",
)


class LogError(Exception):
    """The log cannot be read or written; the message names the file."""


@dataclass(frozen=True)
class Bounds:
    """The most rows there may be, and the most seconds that one is kept."""

    rows: int
    seconds: float

    @classmethod
    def of(cls, settings: FeedbackConfig) -> Bounds:
        """Those of the configuration."""
        return cls(settings.max_rows, settings.max_age_days * _DAY)


class DecisionLog:
    """Writes the log in `path`, whose folder is made if need be. Not for several threads.

    Everything happens in a `transaction`. Its block raises `LogError` where the file cannot be
    written; then nothing of it is there, and the next one opens the file anew.
    """

    def __init__(self, path: Path, bounds: Bounds) -> None:
        self._path, self._bounds = path, bounds
        self._database: sqlite3.Connection | None = None
        self._inode = 0

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """What is written in the block is on disk as a whole once it ends, or not at all."""
        whole = False
        try:
            database = self._open()
            # Immediate: whoever reads first and writes then may be refused in the middle.
            database.execute("BEGIN IMMEDIATE")
            self._forget(database)
            yield Transaction(database)
            self._prune(database)
            database.execute("COMMIT")
            whole = True
        except (sqlite3.Error, OSError) as error:
            raise LogError(f"{self._path}: {error}") from error
        finally:
            if not whole:
                self.close()

    def close(self) -> None:
        """Close the file, undoing what is not committed; the next transaction opens it again."""
        if self._database is not None:
            self._database.close()
            self._database = None

    def _open(self) -> sqlite3.Connection:
        if self._database is not None and self._inode != _inode(self._path):
            # The file was moved or deleted: what is written there now, nobody would find.
            self.close()
        if self._database is None:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._database = _connect(self._path)
            _use_wal(self._database)
            for setting in ("synchronous = FULL", "secure_delete = ON"):
                self._database.execute(f"PRAGMA {setting}")
            _prepare(self._database, self._path)
            self._inode = _inode(self._path)
        return self._database

    def _forget(self, database: sqlite3.Connection) -> None:
        """Let go what is too old."""
        oldest = time.time() - self._bounds.seconds
        database.execute("DELETE FROM decisions WHERE at < ?", (oldest,))

    def _prune(self, database: sqlite3.Connection) -> None:
        """Let go what is too many, the oldest first: those without an opinion.

        Those with one go where they are more than half, so that new decisions find room.
        """
        select = "SELECT count(*), coalesce(sum(rated), 0) FROM decisions"
        count, rated = database.execute(select).fetchone()
        excess = max(0, count - self._bounds.rows)
        of_rated = min(excess, max(0, rated - self._bounds.rows // 2))
        for number, kind in ((of_rated, 1), (excess - of_rated, 0)):
            database.execute(
                "DELETE FROM decisions WHERE rowid IN "
                "(SELECT rowid FROM decisions WHERE rated = ? ORDER BY at LIMIT ?)",
                (kind, number),
            )


class Transaction:
    """What may be written; see `DecisionLog.transaction`."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def add(self, logged: LoggedDecision) -> None:
        """Keep a decision; one of the same id is there already and stays."""
        columns = to_columns(logged)
        names, marks = ", ".join(columns), ", ".join(f":{name}" for name in columns)
        insert = f"INSERT OR IGNORE INTO decisions ({names}) VALUES ({marks})"
        self._database.execute(insert, columns)

    def end(
        self,
        decision_id: str,
        latency: str,
        provenance: Provenance | None = None,
        *,
        stood_in: bool,
    ) -> None:
        """Note how the answer to a decision ended, and what it stood on."""
        self._database.execute(
            "UPDATE decisions SET latency = ?, stood_in = ?, "
            "body = json_set(body, '$.provenance', json(?)) WHERE id = ?",
            (latency, int(stood_in), provenance_body(provenance), decision_id),
        )

    def rate(self, decision_id: str, tenant: str, opinion: Opinion) -> bool | None:
        """Keep an opinion on a tenant's decision, in place of the one before.

        Returns whether there was one before; None where the tenant has no such decision.
        """
        mine = (decision_id, tenant)
        select = "SELECT rated FROM decisions WHERE id = ? AND tenant = ?"
        found = self._database.execute(select, mine).fetchone()
        if found is None:
            return None
        self._database.execute(
            "UPDATE decisions SET score = ?, expert = ?, comment = ?, opinion_at = ?, rated = 1 "
            "WHERE id = ? AND tenant = ?",
            (opinion.score, opinion.expert, opinion.comment, opinion.at, *mine),
        )
        return bool(found["rated"])


def log_file(settings: FeedbackConfig) -> Path:
    """Where the log of a service lies."""
    folder = settings.directory
    return (Path(folder) if folder else default_home() / "feedback") / FILE


def read_log(
    path: Path, since: float = 0.0, tenant: str | None = None, *, rated: bool = False
) -> Iterator[LoggedDecision]:
    """Yield the decisions of a log, oldest first; none without a file.

    `since` is in seconds since 1970; `rated` leaves out those that nothing was said about.

    Raises:
        LogError: the file cannot be read, or a row is none of ours.
    """
    if not path.exists():
        return
    try:
        with closing(_connect(path)) as database:
            _check(database, path)
            rows = database.execute(
                "SELECT * FROM decisions WHERE at >= ? AND (tenant = ? OR ? IS NULL) "
                "AND rated >= ? ORDER BY at, id",
                (since, tenant, tenant, int(rated)),
            )
            yield from map(from_columns, rows)
    except (sqlite3.Error, ValueError, KeyError, TypeError) as error:
        raise LogError(f"{path}: {type(error).__name__}: {error}") from error


def _connect(path: Path) -> sqlite3.Connection:
    # Without a level of its own, Python opens transactions by itself.
    database = sqlite3.connect(path, timeout=_PATIENCE, isolation_level=None)
    database.row_factory = sqlite3.Row
    return database


def _use_wal(database: sqlite3.Connection) -> None:
    # SQLite does not wait for the change itself, which two processes make of a new file at once.
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            database.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(_PAUSE)


def _prepare(database: sqlite3.Connection, path: Path) -> None:
    database.execute("BEGIN IMMEDIATE")
    (found,) = database.execute("PRAGMA user_version").fetchone()
    if found == 0:
        database.execute(_TABLE)
        for index in _INDEXES:
            database.execute(index)
        database.execute(f"PRAGMA user_version = {_FORMAT}")
    database.execute("COMMIT")
    _check(database, path)


def _check(database: sqlite3.Connection, path: Path) -> None:
    (found,) = database.execute("PRAGMA user_version").fetchone()
    if found != _FORMAT:
        raise LogError(f"{path}: its format is {found}, this program reads {_FORMAT}")


def _inode(path: Path) -> int:
    try:
        return os.stat(path).st_ino
    except FileNotFoundError:
        return 0
