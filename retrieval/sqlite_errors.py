"""Errors of SQLite and of the disk, told as those of `retrieval.errors`."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from retrieval.errors import CollectionBusy, CorruptCollection, RetrievalError, StorageFailed


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Raise `CorruptCollection`, `CollectionBusy` or `StorageFailed` for the file at `path`."""
    try:
        yield
    except sqlite3.Error as error:
        raise _told(path, error) from error


@contextmanager
def accessible(name: str) -> Iterator[None]:
    """Raise `StorageFailed` where the files of a collection cannot be made, locked or moved."""
    try:
        yield
    except RetrievalError:
        raise
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise StorageFailed(f"Collection {name!r} cannot be read or written: {reason}.") from error


def _told(path: Path, error: sqlite3.Error) -> RetrievalError:
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
