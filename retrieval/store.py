"""The SQLite file of one collection: documents, passages, vectors and the word index.

The file is the only truth of a collection. It runs in WAL mode with synchronous=FULL, and
documents are written in transactions: what was committed survives a crash, and a reader sees a
document whole or not at all. Texts are kept once; passages are offsets into them. Words are kept
in an FTS5 table, which computes BM25 (k1 = 1.2, b = 0.75).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from retrieval.chunking import Chunk
from retrieval.document import MAX_TITLE, Document
from retrieval.errors import CollectionBusy, CorruptCollection, MissingDocument
from retrieval.records import DOCUMENT, PASSAGE_TEXT, document_of, document_row
from retrieval.schema import VERSION, Vector, blob, make_file, segments, unpacked
from retrieval.sqlite_errors import translated
from retrieval.words import words


@dataclass(frozen=True, slots=True)
class StoredPassage:
    """A row of the file: one passage with its document's provenance and its vector.

    See `retrieval.passage.Passage`; `added` is 0 where it is not known.
    """

    key: int
    passage_id: str
    document_id: str
    title: str
    url: str
    text: str
    start: int
    end: int
    license: str
    lang: str
    file: str
    page: int | None
    line: int | None
    sha256: str
    added: float
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
        with self.healthy():
            self._execute("PRAGMA foreign_keys = ON")
            self._execute("PRAGMA synchronous = FULL")
            self._execute("PRAGMA secure_delete = ON")
            self._execute(f"PRAGMA query_only = {'OFF' if writable else 'ON'}")
            found = self._integer("PRAGMA user_version")
        if found != VERSION:
            self.close()
            raise CorruptCollection(
                f"Collection {path.parent.name!r} has file version {found}, this program reads "
                f"version {VERSION}; remove the collection and add its documents again."
            )

    @classmethod
    def create(cls, path: Path, probe: Vector) -> Self:
        """Open the file for writing, making it first if need be; the caller holds the write lock.

        `probe` is the encoder's vector of a fixed text, kept to recognise the encoder later.
        """
        if not path.exists():
            with translated(path):
                make_file(path, probe)
        return cls(path, writable=True)

    @property
    def connection(self) -> sqlite3.Connection:
        """The connection, for what keeps tables of its own in the file."""
        return self._connection

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    @contextmanager
    def healthy(self) -> Iterator[None]:
        """Turn SQLite's errors into those of `retrieval.errors`."""
        with translated(self._path):
            yield

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Commit what is written within, all of it or nothing."""
        with self.healthy(), self._transaction("BEGIN IMMEDIATE"):
            yield

    @contextmanager
    def snapshot(self) -> Iterator[int]:
        """Hold one state of the file for reading; gives a number that others' commits change."""
        with self.healthy(), self._transaction("BEGIN"):
            self._integer("SELECT count(*) FROM encoder")  # starts the read transaction
            yield self._integer("PRAGMA data_version")

    def probe(self) -> Vector:
        """Return the vector of the fixed text by the encoder that made this collection."""
        with self.healthy():
            return unpacked(self._execute("SELECT probe FROM encoder").fetchone()[0])

    def counts(self) -> tuple[int, int]:
        """Return the numbers of documents and of passages."""
        with self.healthy():
            return (
                self._integer("SELECT count(*) FROM documents"),
                self._integer("SELECT count(*) FROM passages"),
            )

    def passages(self, keys: Sequence[int]) -> Iterator[StoredPassage]:
        """Yield the passages of these keys that still exist, in no particular order."""
        rows = self._execute(
            f"SELECT p.key, d.id || '#' || p.number, d.id, d.title, d.url, {PASSAGE_TEXT}, "
            "p.start, p.end, d.license, d.lang, d.file, p.page, p.line, d.sha256, d.added, "
            "v.vector "
            "FROM passages p JOIN documents d ON d.key = p.document JOIN vectors v USING (key) "
            f"WHERE p.key IN ({_integers(keys)})"
        )
        for row in rows:
            yield StoredPassage(*(*row[:-1], unpacked(row[-1])))

    def digest(self, document_id: str) -> str | None:
        """Return the digest of a stored document, None where there is none of this id."""
        with self.healthy():
            row = self._execute(
                "SELECT digest FROM documents WHERE id = ?", (document_id,)
            ).fetchone()
        return None if row is None else str(row[0])

    def document(self, document_id: str) -> Document:
        """Return a stored document. Raises `MissingDocument`."""
        with self.healthy():
            row = self._execute(f"SELECT {DOCUMENT} FROM documents d WHERE id = ?", (document_id,))
            found = row.fetchone()
        if found is None:
            raise self._missing(document_id)
        return document_of(found)

    def put(
        self,
        document: Document,
        chunks: Sequence[Chunk],
        vectors: Vector,
        origin: int | None = None,
    ) -> None:
        """Store or replace a document with its chunks and their vectors [len(chunks), d].

        `origin` is the key of the file that it came from. Only within `writing`.
        """
        self.remove(document.id)
        row = document_row(document) | {"origin": origin}
        owner = self._execute(
            f"INSERT INTO documents ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})",
            tuple(row.values()),
        ).lastrowid
        self._connection.executemany(
            "INSERT INTO texts VALUES (?, ?, ?)",
            ((owner, *segment) for segment in segments(document.text)),
        )
        for number, (chunk, vector) in enumerate(zip(chunks, vectors, strict=True), start=1):
            self._put_passage(owner, number, document.title, chunk, vector)

    def stamp(self, document: Document, origin: int | None) -> None:
        """Note where an unchanged document comes from now. Only within `writing`.

        Raises `CollectionBusy` where another writer has removed it meanwhile.
        """
        noted = self._execute(
            "UPDATE documents SET file = ?, sha256 = ?, origin = ? WHERE id = ?",
            (document.file, document.original_sha256, origin, document.id),
        )
        if not noted.rowcount:
            raise CollectionBusy(
                f"The document {document.id!r} of collection {self._path.parent.name!r} was "
                "removed while it was added again; add it once more."
            )

    def delete(self, document_id: str) -> None:
        """Remove a document with its passages. Raises `MissingDocument`. Only within `writing`."""
        if not self.remove(document_id):
            raise self._missing(document_id)

    def remove(self, document_id: str) -> bool:
        """Remove a document if it is there, and say whether it was. Only within `writing`."""
        row = self._execute("SELECT key FROM documents WHERE id = ?", (document_id,)).fetchone()
        if row is None:
            return False
        passages = "SELECT key FROM passages WHERE document = ?"
        self._execute(f"DELETE FROM words WHERE rowid IN ({passages})", row)
        self._execute(f"DELETE FROM vectors WHERE key IN ({passages})", row)
        self._execute("DELETE FROM passages WHERE document = ?", row)
        self._execute("DELETE FROM texts WHERE document = ?", row)
        # Its file is no longer all in, so that adding it again brings the document back.
        self._execute(
            "UPDATE files SET sha256 = '' WHERE key = (SELECT origin FROM documents WHERE key = ?)",
            row,
        )
        self._execute("DELETE FROM documents WHERE key = ?", row)
        return True

    def _put_passage(
        self, owner: int | None, number: int, title: str, chunk: Chunk, vector: Vector
    ) -> None:
        key = self._execute(
            "INSERT INTO passages (document, number, start, end, heading, page, line) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            (owner, number, chunk.start, chunk.end, chunk.heading, chunk.page, chunk.line),
        ).lastrowid
        self._execute("INSERT INTO vectors VALUES (?, ?)", (key, blob(vector)))
        context = " ".join(words(f"{title[:MAX_TITLE]}\n{chunk.heading}"))
        self._execute(
            "INSERT INTO words (rowid, title, body) VALUES (?, ?, ?)",
            (key, context, " ".join(words(chunk.text))),
        )

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


def _integers(values: Sequence[int]) -> str:
    return ", ".join(str(int(value)) for value in values)
