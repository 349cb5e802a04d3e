"""A collection's file of an older version, brought to the present one in place."""

from __future__ import annotations

import hashlib
import sqlite3
from contextlib import closing
from pathlib import Path

from retrieval.schema import FILES, ORIGINS, TEXTS, VERSION, segments

OLDEST = 1
"""The oldest version that can be brought up to date."""

_NEW_COLUMNS = {
    "documents": (
        "lang TEXT NOT NULL DEFAULT ''",
        "metadata TEXT NOT NULL DEFAULT '{}'",
        "file TEXT NOT NULL DEFAULT ''",
        "sha256 TEXT NOT NULL DEFAULT ''",
        "pages TEXT NOT NULL DEFAULT '[]'",
        "added REAL NOT NULL DEFAULT 0",
        "origin INTEGER REFERENCES files (key)",
    ),
    "passages": ("page INTEGER", "line INTEGER"),
}


def version(path: Path) -> int:
    """Return the version of a collection's file. Raises `sqlite3.Error`."""
    with closing(sqlite3.connect(path, timeout=30.0, isolation_level=None)) as connection:
        return _version(connection)


def migrate(path: Path) -> None:
    """Bring the file at `path` to the present version in one transaction; else it stays as it was.

    The caller holds the write lock. A file of the present version, or of one that cannot be
    brought up to date, is left alone. Raises `sqlite3.Error`.
    """
    with closing(sqlite3.connect(path, timeout=30.0, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = FULL")
        if _version(connection) == OLDEST:
            connection.execute("BEGIN IMMEDIATE")
            _widen(connection)
            _move_texts(connection)
            connection.execute("ALTER TABLE documents DROP COLUMN text")
            connection.execute(f"PRAGMA user_version = {VERSION}")
            # Closing without having come here undoes it all.
            connection.execute("COMMIT")


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _widen(connection: sqlite3.Connection) -> None:
    for statement in (FILES, TEXTS):
        connection.execute(statement)
    for table, columns in _NEW_COLUMNS.items():
        for column in columns:
            connection.execute(f"ALTER TABLE {table} ADD COLUMN {column}")
    connection.execute(ORIGINS)


def _move_texts(connection: sqlite3.Connection) -> None:
    keys = [key for (key,) in connection.execute("SELECT key FROM documents")]
    for key in keys:
        row = connection.execute("SELECT text FROM documents WHERE key = ?", (key,)).fetchone()
        text: str = row[0]
        connection.executemany(
            "INSERT INTO texts VALUES (?, ?, ?)", ((key, *part) for part in segments(text))
        )
        # Of the original bytes nothing was kept, so the text stands for them.
        sha256 = hashlib.sha256(text.encode()).hexdigest()
        connection.execute("UPDATE documents SET sha256 = ? WHERE key = ?", (sha256, key))
        _number_lines(connection, key, text)


def _number_lines(connection: sqlite3.Connection, key: int, text: str) -> None:
    rows = connection.execute(
        "SELECT key, start FROM passages WHERE document = ? ORDER BY start", (key,)
    ).fetchall()
    line, counted = 1, 0
    for passage, start in rows:
        line += text.count("\n", counted, start)
        counted = start
        connection.execute("UPDATE passages SET line = ? WHERE key = ?", (line, passage))
