"""The SQLite file of one collection: documents, passages, vectors and the word index.

The file is the only truth of a collection. It runs in WAL mode with synchronous=FULL, and a
document is replaced in one transaction: what `put` returned from survives a crash, and a
reader sees a document whole or not at all. Texts are kept once; passages are offsets into
them. Words are kept in an FTS5 table, which computes BM25 (k1 = 1.2, b = 0.75).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from retrieval.chunking import Chunk
from retrieval.document import Document, TextFormat
from retrieval.errors import (
    CollectionBusy,
    CorruptCollection,
    MissingDocument,
    RetrievalError,
    StorageFailed,
)
from retrieval.schema import VERSION, Vector, blob, make_file
from retrieval.words import words

TITLE_WEIGHT = 1.0
"""Weight of a word in title or heading against one in the text, in BM25."""


@dataclass(frozen=True, slots=True)
class StoredPassage:
    """A row of the file: one passage with its document's provenance and its vector."""

    key: int
    passage_id: str
    document_id: str
    title: str
    url: str
    text: str
    start: int
    end: int
    vector: Vector


class Store:
    """A connection to one collection's file. Not thread-safe: the owner locks.

    Raises `CorruptCollection` where the file is damaged or of another version.
    """

    def __init__(self, path: Path, *, writable: bool = False) -> None:
        """Open an existing file; `Store.create` makes a new one."""
        self._path = path
        self._connection = sqlite3.connect(
            path, timeout=30.0, isolation_level=None, check_same_thread=False
        )
        with self._healthy():
            self._execute("PRAGMA foreign_keys = ON")
            self._execute("PRAGMA synchronous = FULL")
            self._execute(f"PRAGMA query_only = {'OFF' if writable else 'ON'}")
            found = self._integer("PRAGMA user_version")
        if found != VERSION:
            self.close()
            raise CorruptCollection(
                f"Collection {path.parent.name!r} has file version {found}, this program reads "
                f"version {VERSION}; remove the collection and add its documents again."
            )

    @classmethod
    def create(cls, path: Path, probe: Vector) -> Store:
        """Open the file for writing, making it first if need be; the caller holds the write lock.

        `probe` is the encoder's vector of a fixed text, kept to recognise the encoder later.
        """
        if not path.exists():
            try:
                make_file(path, probe)
            except sqlite3.Error as error:
                raise _refused(path, error) from error
        return cls(path, writable=True)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    @contextmanager
    def snapshot(self) -> Iterator[int]:
        """Hold one state of the file for reading; gives a number that others' commits change."""
        with self._healthy(), self._transaction("BEGIN"):
            self._integer("SELECT count(*) FROM encoder")  # starts the read transaction
            yield self._integer("PRAGMA data_version")

    def probe(self) -> Vector:
        """Return the vector of the fixed text by the encoder that made this collection."""
        with self._healthy():
            return _vector(self._execute("SELECT probe FROM encoder").fetchone()[0])

    def counts(self) -> tuple[int, int]:
        """Return the numbers of documents and of passages."""
        with self._healthy():
            return (
                self._integer("SELECT count(*) FROM documents"),
                self._integer("SELECT count(*) FROM passages"),
            )

    def digests(self) -> dict[str, str]:
        """Return the digest of every document by its id."""
        with self._healthy():
            return dict(self._execute("SELECT id, digest FROM documents"))

    def keys(self) -> npt.NDArray[np.int64]:
        """Return the keys of all passages: int64, ascending."""
        rows = self._execute("SELECT key FROM passages ORDER BY key").fetchall()
        return np.array([key for (key,) in rows], dtype=np.int64)

    def vectors_after(self, key: int) -> tuple[npt.NDArray[np.int64], Vector]:
        """Return keys [n] and vectors [n, d] of the passages stored after `key`; keys only grow."""
        rows = self._execute(
            "SELECT key, vector FROM vectors WHERE key > ? ORDER BY key", (key,)
        ).fetchall()
        keys = np.array([row[0] for row in rows], dtype=np.int64)
        width = len(self.probe()) if rows else 0
        return keys, _vector(b"".join(row[1] for row in rows)).reshape(len(rows), width)

    def match(
        self, query: Sequence[str], limit: int, among: Sequence[int] | None = None
    ) -> list[tuple[int, float]]:
        """Return (key, BM25 score) of the passages with any word of `query`, best first."""
        if not query:
            return []
        condition = "" if among is None else f"AND rowid IN ({_integers(among)})"
        return self._execute(
            f"SELECT rowid, -bm25(words, {TITLE_WEIGHT}, 1.0) AS score FROM words "
            f"WHERE words MATCH ? {condition} ORDER BY score DESC, rowid LIMIT ?",
            (" OR ".join(f'"{word}"' for word in query), limit),
        ).fetchall()

    def passages(self, keys: Sequence[int]) -> Iterator[StoredPassage]:
        """Yield the passages of these keys that still exist, in no particular order."""
        rows = self._execute(
            "SELECT p.key, d.id || '#' || p.number, d.id, d.title, d.url, "
            "substr(d.text, p.start + 1, p.end - p.start), p.start, p.end, v.vector "
            "FROM passages p JOIN documents d ON d.key = p.document JOIN vectors v USING (key) "
            f"WHERE p.key IN ({_integers(keys)})"
        )
        for row in rows:
            key, passage_id, document_id, title, url, text, start, end, packed = row
            vector = _vector(packed)
            yield StoredPassage(key, passage_id, document_id, title, url, text, start, end, vector)

    def document(self, document_id: str) -> Document:
        """Return a stored document. Raises `MissingDocument`."""
        with self._healthy():
            row = self._execute(
                "SELECT id, title, text, url, license, source, format FROM documents WHERE id = ?",
                (document_id,),
            ).fetchone()
        if row is None:
            raise self._missing(document_id)
        id, title, text, url, license, source, form = row
        return Document(id, title, text, url, license, source, TextFormat(form))

    def put(self, document: Document, chunks: Sequence[Chunk], vectors: Vector) -> None:
        """Store or replace a document with its chunks and their vectors [len(chunks), d]."""
        with self._healthy(), self._transaction("BEGIN IMMEDIATE"):
            self._delete(document.id)
            cursor = self._execute(
                "INSERT INTO documents (id, digest, title, url, license, source, format, text) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(document.id, document.digest, document.title, document.url),
                    *(document.license, document.source, document.format.value, document.text),
                ),
            )
            owner = cursor.lastrowid
            for number, (chunk, vector) in enumerate(zip(chunks, vectors, strict=True), start=1):
                self._put_passage(owner, number, document.title, chunk, vector)

    def delete(self, document_id: str) -> None:
        """Remove a document with its passages. Raises `MissingDocument`."""
        with self._healthy(), self._transaction("BEGIN IMMEDIATE"):
            if not self._delete(document_id):
                raise self._missing(document_id)

    def _put_passage(
        self, owner: int | None, number: int, title: str, chunk: Chunk, vector: Vector
    ) -> None:
        key = self._execute(
            "INSERT INTO passages (document, number, start, end, heading) VALUES (?, ?, ?, ?, ?)",
            (owner, number, chunk.start, chunk.end, chunk.heading),
        ).lastrowid
        self._execute("INSERT INTO vectors VALUES (?, ?)", (key, blob(vector)))
        context = " ".join(words(f"{title}\n{chunk.heading}"))
        self._execute(
            "INSERT INTO words (rowid, title, body) VALUES (?, ?, ?)",
            (key, context, " ".join(words(chunk.text))),
        )

    def _delete(self, document_id: str) -> bool:
        row = self._execute("SELECT key FROM documents WHERE id = ?", (document_id,)).fetchone()
        if row is None:
            return False
        passages = "SELECT key FROM passages WHERE document = ?"
        self._execute(f"DELETE FROM words WHERE rowid IN ({passages})", row)
        self._execute(f"DELETE FROM vectors WHERE key IN ({passages})", row)
        self._execute("DELETE FROM passages WHERE document = ?", row)
        self._execute("DELETE FROM documents WHERE key = ?", row)
        return True

    def _missing(self, document_id: str) -> MissingDocument:
        return MissingDocument(
            f"Collection {self._path.parent.name!r} has no document {document_id!r}."
        )

    def _execute(self, statement: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        return self._connection.execute(statement, tuple(values))

    def _integer(self, statement: str) -> int:
        return int(self._execute(statement).fetchone()[0])

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[None]:
        self._execute(begin)
        try:
            yield
            self._execute("COMMIT")
        finally:
            if self._connection.in_transaction:
                self._execute("ROLLBACK")

    @contextmanager
    def _healthy(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise _refused(self._path, error) from error


def _refused(path: Path, error: sqlite3.Error) -> RetrievalError:
    name = path.parent.name
    # Errors of the sqlite3 module itself, not of SQLite, carry no code.
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return CorruptCollection(
            f"The file of collection {name!r} is damaged ({error}); "
            "remove the collection and add its documents again."
        )
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return CollectionBusy(f"Collection {name!r} is locked by another program: {error}.")
    return StorageFailed(f"Collection {name!r} cannot be read or written: {error}.")


def _integers(values: Sequence[int]) -> str:
    return ", ".join(str(int(value)) for value in values)


def _vector(packed: bytes) -> Vector:
    return np.frombuffer(packed, dtype="<f4").astype(np.float32, copy=False)
