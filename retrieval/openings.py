"""The collections that are open for searching, one for each name."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Container
from pathlib import Path

from retrieval.collection import (
    Collection,
    CollectionInfo,
    collection_names,
    missing,
    valid_name,
)
from retrieval.errors import MissingCollection, RetrievalError
from retrieval.schema import Vector

logger = logging.getLogger(__name__)


class Openings:
    """Opens collections under `root` when they are asked for; safe to use from several threads.

    `probe` gives the present encoder's vector of the fixed text. Opening one collection, which may
    have to wait for its writer, keeps nobody from the others.
    """

    def __init__(self, root: Path, probe: Callable[[], Vector]) -> None:
        self._root, self._probe = root, probe
        self._opened: dict[str, Collection] = {}
        self._locks: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    def get(self, name: str) -> Collection:
        """Return an open collection.

        Raises `InvalidName`, `MissingCollection`, and what `Collection` raises.
        """
        valid_name(name)
        opened = self._current(name)
        if opened is not None:
            return opened
        if name not in collection_names(self._root):
            raise missing(self._root, name)
        with self._lock:
            lock = self._locks.setdefault(name, threading.Lock())
        with lock:
            # Whoever held the lock before may have opened it.
            opened = self._current(name) or Collection(self._root, name, self._probe())
            with self._lock:
                self._opened[name] = opened
        return opened

    def infos(self, names: Container[str] | None = None) -> list[CollectionInfo]:
        """Return the figures of all collections, or of those among `names`, by name.

        One that cannot be opened is left out and told in the log: it hides no other.
        """
        found = []
        for name in collection_names(self._root):
            if names is not None and name not in names:
                continue
            try:
                found.append(self.get(name).info())
            except MissingCollection:
                # Removed since the names were read.
                continue
            except RetrievalError as error:
                logger.warning("left out of the list: %s", error)
        return found

    def forget(self, name: str) -> None:
        """Let go of a collection; its file is closed when the last search in it has ended."""
        with self._lock:
            self._opened.pop(name, None)
            self._locks.pop(name, None)

    def close(self) -> None:
        """Close every open collection."""
        with self._lock:
            for collection in self._opened.values():
                collection.close()
            self._opened.clear()

    def _current(self, name: str) -> Collection | None:
        with self._lock:
            opened = self._opened.get(name)
            if opened is not None and not opened.is_current():
                del self._opened[name]
                return None
            return opened
