"""The vector index of one collection: faiss, exact, in memory, following the collection's file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import faiss
import numpy as np
import numpy.typing as npt

from retrieval.schema import Vector
from retrieval.store import Store


class VectorIndex:
    """Exact inner-product search over unit vectors, keyed by passage; not thread-safe."""

    def __init__(self, dimensions: int) -> None:
        """Start empty, for vectors of this length."""
        self._faiss = faiss.IndexIDMap(faiss.IndexFlatIP(dimensions))
        self._newest = 0

    def __len__(self) -> int:
        return int(self._faiss.ntotal)

    def follow(self, store: Store) -> None:
        """Take over what was added to and removed from the file since the last call."""
        keys, vectors = store.vectors_after(self._newest)
        stored = store.keys()
        if len(self) + len(keys) != len(stored):
            held = faiss.vector_to_array(self._faiss.id_map)
            gone = np.setdiff1d(held, stored)
            self._faiss.remove_ids(faiss.IDSelectorBatch(gone))
        if len(keys):
            self._faiss.add_with_ids(vectors, keys)
            self._newest = int(keys[-1])

    def search(self, vector: Vector, limit: int) -> list[tuple[int, float]]:
        """Return up to `limit` pairs (passage key, cosine similarity), most similar first."""
        count = min(limit, len(self))
        if count == 0:
            return []
        with _one_thread():
            similarities, keys = self._faiss.search(vector.reshape(1, -1), count)
        return list(zip(keys[0].tolist(), similarities[0].tolist(), strict=True))


@contextmanager
def _one_thread() -> Iterator[None]:
    # For one query, waking more threads costs ten times the search where cores are busy.
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def unit(vector: npt.ArrayLike) -> Vector:
    """Return `vector` as float32 of length 1; the zero vector stays as it is."""
    array = np.asarray(vector, dtype=np.float32)
    norm = float(np.linalg.norm(array))
    return array / norm if norm > 0 else array
