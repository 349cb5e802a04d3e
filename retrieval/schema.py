"""The layout of a collection's file, and how a new one comes to be."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float32]
"""A vector [d] or a matrix of them [n, d]."""

VERSION = 2
"""Version of the schema, kept in the file as `PRAGMA user_version`."""

SEGMENT = 16_384
"""Characters of a row of `texts`: a passage of a long document is read without all of it."""

FILES = """
CREATE TABLE files (
    key INTEGER PRIMARY KEY, root TEXT NOT NULL, path TEXT NOT NULL,
    sha256 TEXT NOT NULL DEFAULT '', recipe TEXT NOT NULL DEFAULT '', UNIQUE (root, path)
);
"""
"""Files that documents came from; `sha256` is empty until all of the file's documents are in."""

TEXTS = """
CREATE TABLE texts (
    document INTEGER NOT NULL REFERENCES documents (key), number INTEGER NOT NULL,
    text TEXT NOT NULL, PRIMARY KEY (document, number)
);
"""
"""The documents' texts, `SEGMENT` characters a row."""

_DOCUMENTS = """
CREATE TABLE documents (
    key INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, digest TEXT NOT NULL, title TEXT NOT NULL,
    url TEXT NOT NULL, license TEXT NOT NULL, source TEXT NOT NULL, format TEXT NOT NULL,
    lang TEXT NOT NULL DEFAULT '', metadata TEXT NOT NULL DEFAULT '{}',
    file TEXT NOT NULL DEFAULT '', sha256 TEXT NOT NULL DEFAULT '',
    pages TEXT NOT NULL DEFAULT '[]', added REAL NOT NULL DEFAULT 0,
    origin INTEGER REFERENCES files (key)
);
"""
_PASSAGES = """
CREATE TABLE passages (
    key INTEGER PRIMARY KEY AUTOINCREMENT, document INTEGER NOT NULL REFERENCES documents (key),
    number INTEGER NOT NULL, start INTEGER NOT NULL, end INTEGER NOT NULL, heading TEXT NOT NULL,
    page INTEGER, line INTEGER,
    UNIQUE (document, number)
);
CREATE TABLE vectors (key INTEGER PRIMARY KEY REFERENCES passages (key), vector BLOB NOT NULL);
CREATE TABLE encoder (dimensions INTEGER NOT NULL, probe BLOB NOT NULL);
CREATE VIRTUAL TABLE words USING fts5 (
    title, body,
    tokenize = "porter unicode61 remove_diacritics 0 categories 'L* N* Co M*' tokenchars '+#'"
);
"""
ORIGINS = "CREATE INDEX documents_origin ON documents (origin);"
"""Finds the documents of a file."""

_SCHEMA = FILES + _DOCUMENTS + TEXTS + _PASSAGES + ORIGINS


def make_file(path: Path, probe: Vector) -> None:
    """Make an empty collection at `path`, whole or not at all.

    `probe` is the encoder's vector of a fixed text. The caller holds the write lock; raises
    `sqlite3.Error` and `OSError`.
    """
    unfinished = path.with_suffix(".new")
    unfinished.unlink(missing_ok=True)
    connection = sqlite3.connect(unfinished, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(_SCHEMA)
        connection.execute("INSERT INTO encoder VALUES (?, ?)", (len(probe), blob(probe)))
        connection.execute(f"PRAGMA user_version = {VERSION}")
    finally:
        connection.close()
    unfinished.rename(path)
    _sync(path.parent)
    _sync(path.parent.parent)


def segments(text: str) -> list[tuple[int, str]]:
    """Return the rows (number, text) that `texts` keeps of a text."""
    return [(at // SEGMENT, text[at : at + SEGMENT]) for at in range(0, len(text), SEGMENT)]


def blob(vector: Vector) -> bytes:
    """Return a vector as the file keeps it: little-endian float32."""
    return np.ascontiguousarray(vector, dtype="<f4").tobytes()


def unpacked(packed: bytes) -> Vector:
    """Return the numbers that `blob` packed, of one vector or of several: float32 [n]."""
    return np.frombuffer(packed, dtype="<f4").astype(np.float32, copy=False)


def _sync(folder: Path) -> None:
    # A new name is durable only when its folder is.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
