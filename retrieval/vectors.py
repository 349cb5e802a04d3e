"""The vectors of one collection: its mapped vector file, and in memory what came since."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt

from retrieval.schema import Vector
from retrieval.search_store import Keys, SearchStore
from retrieval.vector_file import (
    NOTE,
    DamagedVectors,
    MappedVectors,
    Pairs,
    VectorFile,
    nearest,
    parameters,
    refined,
)

COMPARED_AT_ONCE = 4096
"""So few passages that a filter lets through are all compared, by their vectors in SQLite."""


class VectorIndex:
    """Inner-product search over unit vectors, keyed by passage; not thread-safe.

    `follow` takes over what happened in the file; call it in the transaction that the search
    belongs to.
    """

    def __init__(self, folder: Path, dimensions: int) -> None:
        """Start empty, for vectors of this length in a collection's folder."""
        self._folder = folder
        self._dimensions = dimensions
        self._note: str | None = None
        self._mapped: MappedVectors | None = None
        self._live: npt.NDArray[np.uint8] | None = None
        self._recent = faiss.IndexIDMap(faiss.IndexFlatIP(dimensions))
        self._newest = self._removal = 0
        self.damaged = False
        """The vector file is missing or broken; all vectors are held in memory instead."""

    def __len__(self) -> int:
        """How many passages are held in memory, beside the vector file."""
        return int(self._recent.ntotal)

    @property
    def file(self) -> VectorFile | None:
        """The vector file that is searched, if there is one."""
        return self._mapped.description if self._mapped else None

    def follow(self, store: SearchStore) -> None:
        """Take over the vector file in force, and what was added and removed since."""
        note = store.note(NOTE)
        if note != self._note or self._newest == 0:
            self._map(note, store.newest_removal())
        for keys, vectors in store.vectors_after(self._newest):
            self._recent.add_with_ids(vectors, keys)
            self._newest = int(keys[-1])
        self._removal, gone = store.removed_after(self._removal)
        if len(gone):
            self._recent.remove_ids(faiss.IDSelectorBatch(gone))
            self._bury(gone)

    def search(
        self, store: SearchStore, vector: Vector, limit: int, allowed: Keys | None = None
    ) -> Pairs:
        """Return up to `limit` pairs (passage key, cosine similarity), most similar first.

        `allowed` are the keys of the passages that may be found, None for all.
        """
        if allowed is not None and len(allowed) <= COMPARED_AT_ONCE:
            every = [(key, 0.0) for key in allowed.tolist()]
            return refined(every, vector, limit, store.vectors_of)
        among = None if allowed is None else _bitmap(allowed)
        found = nearest(self._recent, vector, min(limit, len(self)), parameters(among))
        if self._mapped:
            found += self._among_mapped(store, self._mapped, vector, limit, allowed)
        return sorted(found, key=lambda pair: -pair[1])[:limit]

    def _among_mapped(
        self,
        store: SearchStore,
        mapped: MappedVectors,
        vector: Vector,
        limit: int,
        allowed: Keys | None,
    ) -> Pairs:
        bitmap, share = self._live, 1.0
        if allowed is not None:
            old = allowed[: np.searchsorted(allowed, mapped.description.newest, side="right")]
            if not len(old):
                return []
            bitmap, share = _bitmap(old), len(old) / max(1, mapped.description.count)
        found = mapped.search(vector, limit, bitmap, share)
        refine = mapped.description.refine
        return refined(found, vector, limit, store.vectors_of) if refine else found

    def _map(self, note: str | None, removal: int) -> None:
        self._note = note
        self._start_afresh()
        self._removal = removal
        if note is None:
            return
        description = VectorFile.read(note)
        try:
            self._mapped = MappedVectors(self._folder, description)
        except DamagedVectors:
            self.damaged = True
        else:
            self._newest, self._removal = description.newest, description.removal

    def _start_afresh(self) -> None:
        self._mapped = self._live = None
        self._recent = faiss.IndexIDMap(faiss.IndexFlatIP(self._dimensions))
        self._newest = self._removal = 0
        self.damaged = False

    def _bury(self, gone: Keys) -> None:
        if self._mapped is None:
            return
        newest = self._mapped.description.newest
        if self._live is None:
            self._live = np.full(newest // 8 + 1, 0xFF, dtype=np.uint8)
        old = gone[gone <= newest]
        np.bitwise_and.at(self._live, old // 8, ~(1 << (old % 8)).astype(np.uint8))


def _bitmap(keys: Keys) -> npt.NDArray[np.uint8]:
    length = int(keys[-1]) + 1 if len(keys) else 0
    mask = np.zeros(length, dtype=np.uint8)
    mask[keys] = 1
    return np.packbits(mask, bitorder="little")


def unit(vector: npt.ArrayLike) -> Vector:
    """Return `vector` as float32 of length 1; the zero vector stays as it is."""
    array = np.asarray(vector, dtype=np.float32)
    norm = float(np.linalg.norm(array))
    return array / norm if norm > 0 else array
