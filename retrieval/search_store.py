"""What a search asks of a collection's file: words, vectors, filters, and notes of its own.

The notes (which vector file is in force, how words and meaning are weighed) and the keys of
removed passages live in the same SQLite file as the documents, so that one transaction shows
them all in one state.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from retrieval.filters import EVERYTHING, Condition
from retrieval.schema import Vector, unpacked
from retrieval.store import Store
from retrieval.tuned_weight import FUSION_NOTE

Keys = npt.NDArray[np.int64]
"""Keys of passages, [n]."""

TITLE_WEIGHT = 1.0
"""Weight of a word in title or heading against one in the text, in BM25."""

_SCORE = f"-bm25(words, {TITLE_WEIGHT}, 1.0) / 2.0"
"""BM25 of the words, which `query_terms` names twice, and half that of the pairs."""

ROWS_AT_ONCE = 4096
"""Vectors that are read from the file together."""

_TABLES = """
CREATE TABLE IF NOT EXISTS notes (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS removed (
    number INTEGER PRIMARY KEY AUTOINCREMENT, key INTEGER NOT NULL
);
CREATE TRIGGER IF NOT EXISTS note_removed AFTER DELETE ON passages
BEGIN INSERT INTO removed (key) VALUES (old.key); END;
"""
_MATCHING = "SELECT p.key FROM passages p JOIN documents d ON d.key = p.document WHERE {condition}"


class SearchStore(Store):
    """A collection's file with the questions of a search. Not thread-safe: the owner locks."""

    def __init__(self, path: Path, *, writable: bool = False) -> None:
        """Open the file; a writer adds the tables of this module where they are missing."""
        super().__init__(path, writable=writable)
        if writable:
            with self.healthy():
                self._connection.executescript(_TABLES)

    def match(
        self,
        query: Sequence[str],
        limit: int,
        condition: Condition = EVERYTHING,
        also: Sequence[int] = (),
    ) -> dict[int, float]:
        """Return the BM25 scores of the `limit` best passages with any term of `query`, by key.

        Terms are those of `retrieval.words.query_terms`. Of the passages `also` those with a term
        are among them.
        """
        if not query:
            return {}
        # The plus keeps SQLite from asking the word index once for every allowed passage.
        allowed = (
            f"AND +rowid IN ({_MATCHING.format(condition=condition.sql)})" if condition.sql else ""
        )
        # Scoring takes the time, so it is done once for both.
        found = self._execute(
            f"WITH scored AS MATERIALIZED (SELECT rowid AS key, {_SCORE} AS score FROM words "
            f"WHERE words MATCH ? {allowed}) "
            "SELECT * FROM (SELECT * FROM scored ORDER BY score DESC, key LIMIT ?) "
            f"UNION ALL SELECT * FROM scored WHERE key IN ({_integers(also)})",
            (_any_of(query), *condition.values, limit),
        )
        return dict(found.fetchall())

    def content_version(self) -> str:
        """Return a digest of what each document holds, of its original, and of the fusion.

        Only within `snapshot`. It reads the description of every document.
        """
        digest = hashlib.sha256(repr(self.note(FUSION_NOTE)).encode())
        for row in self._execute("SELECT digest, sha256, file FROM documents ORDER BY id"):
            digest.update(repr(row).encode())
        return digest.hexdigest()

    def allowed(self, condition: Condition) -> Keys:
        """Return the keys of the passages that meet a condition, ascending."""
        sql = _MATCHING.format(condition=condition.sql or "1")
        return _keys(self._execute(f"{sql} ORDER BY p.key", condition.values))

    def vectors_after(self, key: int) -> Iterator[tuple[Keys, Vector]]:
        """Yield keys [n] and vectors [n, d] of the passages stored after `key`; keys only grow."""
        rows = self._execute("SELECT key, vector FROM vectors WHERE key > ? ORDER BY key", (key,))
        while block := rows.fetchmany(ROWS_AT_ONCE):
            yield _matrix(block)

    def vectors_of(self, keys: Sequence[int]) -> tuple[Keys, Vector]:
        """Return the keys [n] among these that exist, ascending, and their vectors [n, d]."""
        rows = self._execute(
            f"SELECT key, vector FROM vectors WHERE key IN ({_integers(keys)}) ORDER BY key"
        ).fetchall()
        return _matrix(rows)

    def count_after(self, key: int) -> int:
        """Return how many passages were stored after `key`."""
        counted = self._execute("SELECT count(*) FROM passages WHERE key > ?", (key,))
        return int(counted.fetchone()[0])

    def removed_after(self, number: int) -> tuple[int, Keys]:
        """Return the number of the newest removal and the keys removed after removal `number`."""
        if not self._has("removed"):
            return number, np.empty(0, dtype=np.int64)
        rows = self._execute(
            "SELECT number, key FROM removed WHERE number > ? ORDER BY number", (number,)
        ).fetchall()
        newest = rows[-1][0] if rows else number
        return newest, np.array([key for _, key in rows], dtype=np.int64)

    def newest_removal(self) -> int:
        """Return the number of the newest removal, 0 before the first."""
        if not self._has("removed"):
            return 0
        return self._integer(
            "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'removed'"
        )

    def note(self, name: str) -> str | None:
        """Return the note of this name."""
        if not self._has("notes"):
            return None
        row = self._execute("SELECT value FROM notes WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def write_note(self, name: str, value: str | None, forget_removals: int = 0) -> None:
        """Write a note, or erase it; forget the removals up to a number in the same transaction.

        The caller holds the write lock.
        """
        with self.healthy(), self._transaction("BEGIN IMMEDIATE"):
            self._execute("DELETE FROM notes WHERE name = ?", (name,))
            if value is not None:
                self._execute("INSERT INTO notes VALUES (?, ?)", (name, value))
            self._execute("DELETE FROM removed WHERE number <= ?", (forget_removals,))

    def _has(self, table: str) -> bool:
        # A file that nobody has written since before these tables were thought of.
        found = self._execute(
            "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", (table,)
        )
        return found.fetchone() is not None


def _any_of(query: Sequence[str]) -> str:
    return " OR ".join(f'"{word}"' for word in query)


def _integers(values: Sequence[int]) -> str:
    return ", ".join(str(int(value)) for value in values)


def _keys(rows: sqlite3.Cursor) -> Keys:
    return np.array([key for (key,) in rows], dtype=np.int64)


def _matrix(rows: Sequence[tuple[int, bytes]]) -> tuple[Keys, Vector]:
    keys = np.array([key for key, _ in rows], dtype=np.int64)
    flat = unpacked(b"".join(vector for _, vector in rows))
    return keys, flat.reshape(len(rows), -1) if rows else flat.reshape(0, 0)
