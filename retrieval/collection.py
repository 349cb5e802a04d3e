"""One collection: a named folder with one SQLite file, searched by words and by vectors.

Any number of processes may search and one at a time may write; readers are never blocked,
and see what others wrote at their next search.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retrieval.candidates import Candidates
from retrieval.catalogue import DocumentInfo, catalogue
from retrieval.collection_folder import FILE, collection_file, held, identity, size, write_lock
from retrieval.document import Document
from retrieval.errors import EncoderMismatch, InvalidName, InvalidQuery, MissingCollection
from retrieval.filters import EVERYTHING, Condition
from retrieval.migration import OLDEST, migrate, version
from retrieval.schema import Vector
from retrieval.search_store import Keys, SearchStore
from retrieval.sqlite_errors import accessible, translated
from retrieval.store import Store, StoredPassage
from retrieval.tuned_weight import FUSION_NOTE, tuned_weight
from retrieval.vector_file import VectorFile
from retrieval.vectors import VectorIndex

SAME_ENCODER = 0.99
"""Least cosine between two vectors of the probe text that counts as the same encoder."""

REMEMBERED_FILTERS = 16
"""Filters whose passages are remembered until the collection changes."""

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


@dataclass(frozen=True, slots=True)
class CollectionInfo:
    """What `Index.list` tells about a collection; `bytes` is its size on disk."""

    name: str
    documents: int
    passages: int
    dimensions: int
    bytes: int


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
    return sorted(folder.name for folder in folders if (folder / FILE).is_file())


class Collection:
    """A collection opened for searching; safe to use from several threads."""

    def __init__(self, root: Path, name: str, probe: Vector) -> None:
        """Open it; `probe` is the present encoder's vector of the fixed text.

        Raises `MissingCollection`, `CorruptCollection`, `EncoderMismatch` where it keeps another.
        """
        self.name = valid_name(name)
        self._path = collection_file(root, name)
        if not self._path.is_file():
            raise missing(root, name)
        _bring_up_to_date(root, name, self._path)
        self._identity = identity(self._path)
        self._store = SearchStore(self._path)
        self._lock = threading.Lock()
        try:
            _require_same_encoder(name, self._store.probe(), probe)
        except EncoderMismatch:
            self._store.close()
            raise
        self._dimensions = len(probe)
        self._vectors = VectorIndex(self._path.parent, self._dimensions)
        self._version: int | None = None
        self._allowed: dict[Condition, Keys] = {}
        self._weight: float | None = None
        self._content = ""

    def is_current(self) -> bool:
        """Say whether the file that was opened is still the collection's file."""
        return identity(self._path) == self._identity

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._store.close()

    def info(self) -> CollectionInfo:
        """Return the collection's figures. Raises `MissingCollection` where it was removed."""
        with self._lock:
            documents, passages = self._store.counts()
        folder = self._path.parent
        try:
            bytes = sum(size(file) for file in folder.iterdir())
        except FileNotFoundError as error:
            raise missing(folder.parent, self.name) from error
        return CollectionInfo(self.name, documents, passages, self._dimensions, bytes)

    def content_version(self) -> str:
        """Return a digest of all documents and of how they are searched."""
        with self._current_snapshot():
            self._content = self._content or self._store.content_version()
            return self._content

    def rank(
        self,
        query: Sequence[str],
        vector: Vector,
        depth: int,
        condition: Condition = EVERYTHING,
    ) -> Candidates:
        """Return the `depth` best passages for the words of `query` and for the unit `vector`.

        Each carries both scores. Raises `InvalidQuery` for a vector of another length.
        """
        if vector.shape != (self._dimensions,):
            raise InvalidQuery(
                f"Collection {self.name!r} holds vectors of {self._dimensions} numbers; "
                f"the query has shape {vector.shape}."
            )
        with self._current_snapshot():
            allowed = self._meeting(condition)
            similar = dict(self._vectors.search(self._store, vector, depth, allowed))
            words = self._store.match(query, depth, condition, list(similar))
            unmet, vectors = self._store.vectors_of([key for key in words if key not in similar])
            if len(unmet):
                similar.update(zip(unmet.tolist(), (vectors @ vector).tolist(), strict=True))
            weight = self._weight
        keys = sorted(similar)
        bm25 = np.array([words.get(key, 0.0) for key in keys], dtype=np.float64)
        similarity = np.array([similar[key] for key in keys], dtype=np.float64)
        return Candidates(keys, bm25, similarity, weight)

    def passages(self, keys: Sequence[int]) -> dict[int, StoredPassage]:
        """Return by key each of these passages that still exists."""
        with self._current_snapshot():
            return {row.key: row for row in self._store.passages(keys)}

    @property
    def damaged(self) -> bool:
        """Whether the vector file is missing or broken, and ought to be made anew."""
        return self._vectors.damaged

    def vector_file(self) -> VectorFile | None:
        """Return the description of the vector file that is searched, if there is one."""
        with self._current_snapshot():
            return self._vectors.file

    def _meeting(self, condition: Condition) -> Keys | None:
        if not condition.sql:
            return None
        if condition not in self._allowed:
            if len(self._allowed) >= REMEMBERED_FILTERS:
                self._allowed.pop(next(iter(self._allowed)))
            self._allowed[condition] = self._store.allowed(condition)
        return self._allowed[condition]

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
                self._allowed, self._content = {}, ""
                self._weight = tuned_weight(self._store.note(FUSION_NOTE))
                self._version = version
            yield


class CollectionWriter:
    """Writes one collection, made with its first document; locks it for a transaction at a time."""

    def __init__(self, root: Path, name: str, probe: Vector) -> None:
        """Prepare to write; raises `EncoderMismatch` if another encoder made the collection."""
        self._folder = root / valid_name(name)
        self._lock = write_lock(root, name)
        self._probe = probe
        self._store: SearchStore | None = None
        self._identity: tuple[int, int] | None = None

    @contextmanager
    def reading(self) -> Iterator[Store | None]:
        """Hold the lock and give the collection, None before its first document."""
        if self._store is None and not (self._folder / FILE).is_file():
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

    def note(self, name: str, value: str | None) -> None:
        """Write a note of the search into the file, or erase it.

        Raises `MissingCollection`, `CollectionBusy`.
        """
        with self._locked(make=False) as store:
            store.write_note(name, value)

    def close(self) -> None:
        """Close the file, if it was opened."""
        if self._store is not None:
            self._store.close()
            self._store = None

    @contextmanager
    def _locked(self, *, make: bool) -> Iterator[SearchStore]:
        path, name = self._folder / FILE, self._folder.name
        with held(self._lock, name):
            store = self._store
            if store is None:
                if not make and not path.is_file():
                    raise missing(self._folder.parent, name)
                store = self._open(path, name)
            elif identity(path) != self._identity:
                # What was written before is gone: going on would leave half of it.
                raise MissingCollection(f"Collection {name!r} was removed while it was filled.")
            yield store

    def _open(self, path: Path, name: str) -> SearchStore:
        with accessible(name):
            self._folder.mkdir(exist_ok=True)
        if path.is_file():
            with translated(path):
                migrate(path)
        self._store = store = SearchStore.create(path, self._probe)
        self._identity = identity(path)
        _require_same_encoder(name, store.probe(), self._probe)
        return store


def missing(root: Path, name: str) -> MissingCollection:
    """Return the error for a collection that does not exist, listing those that do."""
    known = ", ".join(collection_names(root)) or "none yet"
    return MissingCollection(f"There is no collection {name!r}. Collections here: {known}.")


def _bring_up_to_date(root: Path, name: str, path: Path) -> None:
    with translated(path):
        if version(path) == OLDEST:
            with held(write_lock(root, name), name):
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
