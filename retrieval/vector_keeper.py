"""Keeps the vector files of the collections up to date, in the background of whoever writes."""

from __future__ import annotations

import logging
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Lock

from filelock import FileLock, Timeout

from retrieval.collection import missing, valid_name
from retrieval.collection_folder import collection_file, held, identity, write_lock
from retrieval.errors import RetrievalError
from retrieval.search_store import SearchStore
from retrieval.vector_build import PREFIX, SUFFIX, VectorPlan, make_vector_file
from retrieval.vector_file import NOTE, VectorFile

logger = logging.getLogger(__name__)

KEPT = 2
"""Vector files that stay on disk: the one in force, and the last one, still open in replicas."""


class VectorKeeper:
    """Makes vector files for the collections under a folder; safe to use from several threads."""

    def __init__(self, root: Path, plan: VectorPlan) -> None:
        """Nothing runs until a collection is looked after."""
        self._root = root
        self._plan = plan
        self._threads = ThreadPoolExecutor(1, "vectors")
        self._running: dict[str, Future[None]] = {}
        self._asked: dict[str, bool] = {}
        self._lock = Lock()

    def look_after(self, name: str, *, suspect: bool = False) -> None:
        """Make the collection's vector file anew in the background if it is time for that.

        With `suspect` its bytes are looked at, too. The interpreter waits for it at its end.
        A collection that cannot be read is told in the log: whoever wrote it has been told.
        """
        path = collection_file(self._root, name)
        try:
            if not path.is_file() or not (suspect or self._due(path)):
                return
        except RetrievalError as error:
            _tell(name, error)
            return
        with self._lock:
            self._asked[name] = self._asked.get(name, False) or suspect
            running = self._running.get(name)
            if running is None or running.done():
                self._running[name] = self._threads.submit(self._serve, name)
                self._running[name].add_done_callback(partial(_report, name))

    def refresh(
        self, name: str, *, force: bool = False, suspect: bool = False
    ) -> VectorFile | None:
        """Make the collection's vector file if it is time, or by force, and return it.

        None where none is needed, and where another process is at it. Raises `MissingCollection`,
        `CollectionBusy`, `CorruptCollection`, `StorageFailed`, `OSError`.
        """
        path = collection_file(self._root, valid_name(name))
        if not path.is_file():
            raise missing(self._root, name)
        try:
            with FileLock(self._root / f".{name}.vectors.lock", timeout=0):
                return self._refresh(path, name, force, suspect)
        except Timeout:
            return None

    def settle(self) -> None:
        """Wait for what runs in the background. Raises what it raised."""
        with self._lock:
            running = list(self._running.values())
        for future in running:
            future.result()

    def _serve(self, name: str) -> None:
        # What was asked for while a file was being made is not lost: it is looked at once more.
        while (suspect := self._next(name)) is not None:
            self.refresh(name, suspect=suspect)

    def _next(self, name: str) -> bool | None:
        with self._lock:
            suspect = self._asked.pop(name, None)
            if suspect is None:
                del self._running[name]
            return suspect

    def _refresh(self, path: Path, name: str, force: bool, suspect: bool) -> VectorFile | None:
        before = identity(path)
        if not (force or self._due(path, suspect)):
            return None
        store = SearchStore(path)
        try:
            if not store.count_after(0):
                return None
            made = make_vector_file(store, path.parent, self._plan)
        finally:
            store.close()
        with held(write_lock(self._root, name), name):
            # The collection may have been removed meanwhile, and made anew.
            if identity(path) != before:
                (path.parent / made.name).unlink(missing_ok=True)
                return None
            store = SearchStore(path, writable=True)
            try:
                store.write_note(NOTE, made.written(), forget_removals=made.removal)
            finally:
                store.close()
            _remove_old(path.parent, made.name)
        return made

    def _due(self, path: Path, suspect: bool = False) -> bool:
        store = SearchStore(path)
        try:
            with store.snapshot():
                note = store.note(NOTE)
                if note is None:
                    return store.count_after(0) > self._plan.recent
                file = VectorFile.read(note)
                outside = store.count_after(file.newest)
                _, gone = store.removed_after(file.removal)
        finally:
            store.close()
        sound = file.whole(path.parent) if suspect else file.present(path.parent)
        if not sound:
            return True
        return outside > max(self._plan.recent, file.count // 10) or len(gone) > file.count // 5


def _remove_old(folder: Path, newest: str) -> None:
    files = sorted(folder.glob(f"{PREFIX}*"), key=lambda file: -file.stat().st_mtime)
    for file in files:
        if file.suffix != SUFFIX:  # left behind by a build that was killed
            file.unlink()
    others = [file for file in files if file.suffix == SUFFIX and file.name != newest]
    for file in others[KEPT - 1 :]:
        file.unlink(missing_ok=True)


def _report(name: str, future: Future[None]) -> None:
    error = future.exception()
    if error is not None:
        _tell(name, error)


def _tell(name: str, error: BaseException) -> None:
    logger.warning("the vector file of collection %r was not made: %s", name, error)
