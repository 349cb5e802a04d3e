"""Where a collection lies on disk, and the lock that whoever writes it holds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from retrieval.errors import CollectionBusy
from retrieval.sqlite_errors import accessible

LOCK_SECONDS = 30.0
"""How long a writer waits for another one. Writing one document takes milliseconds."""

FILE = "collection.sqlite"
"""Name of the file that is the collection; what else lies in its folder can be made anew."""


def collection_file(root: Path, name: str) -> Path:
    """Return where the SQLite file of a collection lies."""
    return root / name / FILE


def write_lock(root: Path, name: str) -> FileLock:
    """Return the lock that whoever writes a collection holds; see `held`."""
    return FileLock(root / f".{name}.lock", timeout=LOCK_SECONDS)


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


def identity(path: Path) -> tuple[int, int] | None:
    """Return what tells a file from another one that took its name, None where there is none."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def size(path: Path) -> int:
    """Return the bytes of a file, 0 for one that was removed meanwhile."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
