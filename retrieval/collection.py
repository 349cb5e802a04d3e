"""One collection: a named folder with one SQLite file, searched by words and by vectors.

Any number of processes may search and one at a time may write; readers are never blocked,
and see what others wrote at their next search.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from retrieval.catalogue import DocumentInfo, catalogue
from retrieval.document import Document
from retrieval.errors import (
    CollectionBusy,
    EncoderMismatch,
    InvalidName,
    InvalidQuery,
    MissingCollection,
)
from retrieval.migration import OLDEST, migrate, version
from retrieval.schema import Vector
from retrieval.sqlite_errors import accessible, translated
from retrieval.store import Store, StoredPassage
from retrieval.vectors import VectorIndex

LOCK_SECONDS = 30.0
"""How long a writer waits for another one. Writing one document takes milliseconds."""

SAME_ENCODER = 0.99
"""Least cosine between two vectors of the probe text that counts as the same encoder."""

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_FILE = "collection.sqlite"


@dataclass(frozen=True, slots=True)
class CollectionInfo:
    """What `Index.list` tells about a collection; `bytes` is its size on disk."""

    name: str
    documents: int
    passages: int
    dimensions: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Ranking:
    """The best passages of one collection as (key, score), best first, by each measure.

    `has_all_words`: a passage that is not in `by_words` holds no word of the query.
    """

    by_words: list[tuple[int, float]]
    by_vector: list[tuple[int, float]]
    has_all_words: bool


def valid_name(name: str) -> str:
    """Return `name` if it may name a collection. Raises `InvalidName` otherwise."""
    if not _NAME.fullmatch(name):
        raise InvalidName(
            f"{name!r} cannot name a collection: use 1 to 63 lower-case letters, digits, "
            "'-' and '_', beginning with a letter or digit."
        )
    return name


def collection_names(root: Path) -> list[str]:
    """Return the names of the collections under `root`, sorted."""
    if not root.is_dir():
        return []
    folders = (folder for folder in root.iterdir() if _NAME.fullmatch(folder.name))
    return sorted(folder.name for folder in folders if (folder / _FILE).is_file())


class Collection:
    """A collection opened for searching; safe to use from several threads."""

    def __init__(self, root: Path, name: str, probe: Vector) -> None:
        """Open it and read its vectors into memory.

        Raises `MissingCollection`, `CorruptCollection`, and `EncoderMismatch` where `probe`,
        the present encoder's vector of the fixed text, is not the one that the collection keeps.
        """
        self.name = valid_name(name)
        self._path = root / name / _FILE
        if not self._path.is_file():
            raise missing(root, name)
        _bring_up_to_date(root, name, self._path)
        self._identity = _identity(self._path)
        self._store = Store(self._path)
        self._lock = threading.Lock()
        try:
            _require_same_encoder(name, self._store.probe(), probe)
        except EncoderMismatch:
            self._store.close()
            raise
        self._dimensions = len(probe)
        self._vectors = VectorIndex(self._dimensions)
        self._version: int | None = None

    def is_current(self) -> bool:
        """Say whether the file that was opened is still the collection's file."""
        return _identity(self._path) == self._identity

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._store.close()

    def info(self) -> CollectionInfo:
        """Return the collection's figures."""
        with self._lock:
            documents, passages = self._store.counts()
        size = sum(entry.stat().st_size for entry in os.scandir(self._path.parent))
        return CollectionInfo(self.name, documents, passages, self._dimensions, size)

    def rank(self, query: Sequence[str], vector: Vector, depth: int) -> Ranking:
        """Return the `depth` best passages for the words of `query` and for the unit `vector`."""
        if vector.shape != (self._dimensions,):
            raise InvalidQuery(
                f"Collection {self.name!r} holds vectors of {self._dimensions} numbers; "
                f"the query has shape {vector.shape}."
            )
        with self._current_snapshot():
            by_words = self._store.match(query, depth)
            by_vector = self._vectors.search(vector, depth)
        return Ranking(by_words, by_vector, has_all_words=len(by_words) < depth)

    def passages(
        self, keys: Sequence[int], query: Sequence[str], ranking: Ranking
    ) -> dict[int, tuple[StoredPassage, float]]:
        """Return by key each passage that still exists, with its BM25 score for `query`.

        Scores that `ranking` holds are taken from there.
        """
        scores = dict(ranking.by_words)
        unknown = [] if ranking.has_all_words else [key for key in keys if key not in scores]
        with self._current_snapshot():
            if unknown:
                scores.update(self._store.match(query, len(unknown), among=unknown))
            found = self._store.passages(keys)
            return {row.key: (row, scores.get(row.key, 0.0)) for row in found}

    def document(self, document_id: str) -> Document:
        """Return a stored document. Raises `MissingDocument`."""
        with self._lock:
            return self._store.document(document_id)

    def documents(self, limit: int, after: str) -> list[DocumentInfo]:
        """Return up to `limit` documents by their ids, those behind the id `after`."""
        with self._lock, self._store.healthy():
            return catalogue(self._store.connection, limit, after)

    @contextmanager
    def _current_snapshot(self) -> Iterator[None]:
        with self._lock, self._store.snapshot() as version:
            if version != self._version:
                self._vectors.follow(self._store)
                self._version = version
            yield


class CollectionWriter:
    """Writes one collection, made with its first document; locks it for a transaction at a time."""

    def __init__(self, root: Path, name: str, probe: Vector) -> None:
        """Prepare to write; raises `EncoderMismatch` if another encoder made the collection."""
        self._folder = root / valid_name(name)
        self._lock = FileLock(root / f".{name}.lock", timeout=LOCK_SECONDS)
        self._probe = probe
        self._store: Store | None = None
        self._identity: tuple[int, int] | None = None

    @contextmanager
    def reading(self) -> Iterator[Store | None]:
        """Hold the lock and give the collection, None before its first document."""
        if self._store is None and not (self._folder / _FILE).is_file():
            yield None
        else:
            with self._locked(make=False) as store:
                yield store

    @contextmanager
    def writing(self) -> Iterator[Store]:
        """Hold the lock and commit what is written within; it is on disk when this ends.

        Raises `CollectionBusy`, and `MissingCollection` where it was removed since it was opened.
        """
        with self._locked(make=True) as store, store.writing():
            yield store

    def delete(self, document_id: str) -> None:
        """Remove a document. Raises `MissingDocument`, `MissingCollection`, `CollectionBusy`."""
        with self._locked(make=False) as store, store.writing():
            store.delete(document_id)

    def close(self) -> None:
        """Close the file, if it was opened."""
        if self._store is not None:
            self._store.close()
            self._store = None

    @contextmanager
    def _locked(self, *, make: bool) -> Iterator[Store]:
        path, name = self._folder / _FILE, self._folder.name
        with held(self._lock, name):
            store = self._store
            if store is None:
                if not make and not path.is_file():
                    raise missing(self._folder.parent, name)
                store = self._open(path, name)
            elif _identity(path) != self._identity:
                # What was written before is gone: going on would leave half of it.
                raise MissingCollection(f"Collection {name!r} was removed while it was filled.")
            yield store

    def _open(self, path: Path, name: str) -> Store:
        with accessible(name):
            self._folder.mkdir(exist_ok=True)
        if path.is_file():
            with translated(path):
                migrate(path)
        self._store = store = Store.create(path, self._probe)
        self._identity = _identity(path)
        _require_same_encoder(name, store.probe(), self._probe)
        return store


def missing(root: Path, name: str) -> MissingCollection:
    """Return the error for a collection that does not exist, listing those that do."""
    known = ", ".join(collection_names(root)) or "none yet"
    return MissingCollection(f"There is no collection {name!r}. Collections here: {known}.")


@contextmanager
def held(lock: FileLock, name: str) -> Iterator[None]:
    """Hold a collection's write lock. Raises `CollectionBusy` after `LOCK_SECONDS`."""
    with accessible(name):
        try:
            lock.acquire()
        except Timeout as error:
            raise CollectionBusy(
                f"Collection {name!r} is being written by another process for more than "
                f"{LOCK_SECONDS:.0f} seconds; try again later."
            ) from error
    try:
        yield
    finally:
        lock.release()


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _bring_up_to_date(root: Path, name: str, path: Path) -> None:
    with translated(path):
        if version(path) == OLDEST:
            with held(FileLock(root / f".{name}.lock", timeout=LOCK_SECONDS), name):
                migrate(path)


def _require_same_encoder(name: str, stored: Vector, present: Vector) -> None:
    if len(stored) != len(present):
        raise EncoderMismatch(
            f"Collection {name!r} holds vectors of {len(stored)} numbers, the present encoder "
            f"makes {len(present)}; remove the collection and add its documents again."
        )
    if float(stored @ present) < SAME_ENCODER:
        raise EncoderMismatch(
            f"Collection {name!r} was made with another encoder; remove the collection and add "
            "its documents again, or configure the former encoder."
        )
