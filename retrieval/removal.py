"""Removing collections: out of sight at once, and off the disk for certain."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path

from retrieval.collection import collection_names, missing, valid_name
from retrieval.collection_folder import held, write_lock
from retrieval.errors import StorageFailed
from retrieval.sqlite_errors import accessible

_GRAVE = ".removed-"


def remove_collection(root: Path, name: str) -> None:
    """Remove a collection with its files.

    Raises `MissingCollection`, `CollectionBusy` and `StorageFailed`.
    """
    if valid_name(name) not in collection_names(root):
        raise missing(root, name)
    grave = root / f"{_GRAVE}{uuid.uuid4().hex}"
    with held(write_lock(root, name), name), accessible(name):
        # Another may have removed it while this one waited.
        if name not in collection_names(root):
            raise missing(root, name)
        (root / name).rename(grave)
    sweep(root)
    if grave.exists():
        raise StorageFailed(f"Collection {name!r} is removed, but its files stay in {grave.name}.")


def sweep(root: Path) -> None:
    """Delete what is left of removed collections, by a process that was killed at it, say."""
    for grave in root.glob(f"{_GRAVE}*"):
        # Two may sweep at once, each meeting what the other has just deleted.
        shutil.rmtree(grave, ignore_errors=True)
