"""Making a vector file: of the kind that the number of passages asks for, with measured recall."""

from __future__ import annotations

import math
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from retrieval.errors import StorageFailed
from retrieval.schema import Vector
from retrieval.search_store import Keys, SearchStore
from retrieval.vector_file import Kind, MappedVectors, VectorFile, file_digest, refined, threads

PREFIX, SUFFIX = "vectors-", ".faiss"
"""What a vector file's name begins and ends with."""

ADDED_AT_ONCE = 65_536
"""Vectors that faiss is handed together."""

TRAINING_PER_LIST = 40
"""Vectors that each inverted list's centre is learned from."""

_SEED = 20
_NEAREST = 10
_DEGREES = {Kind.FLAT: 0, Kind.SCALAR: 2, Kind.PRODUCT: 10}


@dataclass(frozen=True, slots=True)
class VectorPlan:
    """When a vector file is made and of what kind; sizes in passages.

    A new one is made once more than `recent` passages, and more than a tenth of the present file,
    lie outside of it. Up to `flat` passages every vector is compared; up to `scalar` inverted lists
    hold 8-bit codes, beyond that product-quantised ones. As many lists are read as `recall` at 10
    takes on `queries` sampled queries, against comparing every vector. `threads` are used for it,
    0 for all but one of the machine's.
    """

    recent: int = 20_000
    flat: int = 100_000
    scalar: int = 4_000_000
    recall: float = 0.98
    queries: int = 200
    threads: int = 0

    def kind(self, count: int) -> Kind:
        """The kind of file for this many passages."""
        if count <= self.flat:
            return Kind.FLAT
        return Kind.SCALAR if count <= self.scalar else Kind.PRODUCT


@dataclass(frozen=True, slots=True)
class _Exported:
    keys: Keys
    vectors: Vector
    removal: int

    def of(self, keys: list[int]) -> tuple[Keys, Vector]:
        wanted = np.array(sorted(keys), dtype=np.int64)
        return wanted, np.asarray(self.vectors[np.searchsorted(self.keys, wanted)])


def make_vector_file(store: SearchStore, folder: Path, plan: VectorPlan) -> VectorFile:
    """Make a vector file of all passages in `folder`; nobody uses it until it is noted.

    The collection may be searched and written meanwhile. Raises `OSError`, and `ValueError`
    for a collection without passages.
    """
    name = f"{PREFIX}{uuid.uuid4().hex}{SUFFIX}"
    with threads(plan.threads or max(1, len(os.sched_getaffinity(0)) - 1)):
        with _exported(store, folder / f"{name}.raw") as exported:
            kind = plan.kind(len(exported.keys))
            made = _write(exported, folder, name, kind)
            tuned = _tuned(exported, folder, made, plan)
            if tuned.recall < plan.recall and kind is Kind.PRODUCT:
                made = _write(exported, folder, name, Kind.SCALAR)
                tuned = _tuned(exported, folder, made, plan)
            return tuned


@contextmanager
def _exported(store: SearchStore, path: Path) -> Iterator[_Exported]:
    # The transaction ends with the copy: one that lasted for the whole build would keep SQLite
    # from folding its log back into the file.
    try:
        with store.snapshot(), path.open("wb") as file:
            removal = store.newest_removal()
            keys = []
            for block, vectors in store.vectors_after(0):
                keys.append(block)
                vectors.tofile(file)
        if not keys:
            raise ValueError("a collection without passages has no vector file")
        every = np.concatenate(keys)
        mapped = np.memmap(path, dtype=np.float32, mode="r").reshape(len(every), -1)
        yield _Exported(every, mapped, removal)
    finally:
        path.unlink(missing_ok=True)


def _write(exported: _Exported, folder: Path, name: str, kind: Kind) -> VectorFile:
    count, dimensions = exported.vectors.shape
    lists = 0 if kind is Kind.FLAT else max(1, min(int(4 * math.sqrt(count)), count // 40))
    index = _empty(kind, dimensions, lists)
    if lists:
        rows = np.random.default_rng(_SEED).permutation(count)[: TRAINING_PER_LIST * lists]
        index.train(np.asarray(exported.vectors[np.sort(rows)]))
    for start in range(0, count, ADDED_AT_ONCE):
        block = slice(start, start + ADDED_AT_ONCE)
        index.add_with_ids(np.asarray(exported.vectors[block]), exported.keys[block])
    unfinished = folder / f"{name}.new"
    try:
        faiss.write_index(index, str(unfinished))
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        unfinished.rename(folder / name)
    except RuntimeError as error:
        # So faiss tells of a full disk.
        raise StorageFailed(f"{str(unfinished)!r} cannot be written: {error}") from error
    finally:
        unfinished.unlink(missing_ok=True)
    path = folder / name
    return VectorFile(
        name=name,
        kind=kind,
        count=count,
        newest=int(exported.keys[-1]),
        removal=exported.removal,
        lists=lists,
        probes=lists,
        refine=_DEGREES[kind],
        recall=1.0,
        bytes=path.stat().st_size,
        sha256=file_digest(path),
    )


def _empty(kind: Kind, dimensions: int, lists: int) -> faiss.Index:
    if kind is Kind.FLAT:
        return faiss.IndexIDMap(faiss.IndexFlatIP(dimensions))
    codes = "SQ8" if kind is Kind.SCALAR else f"PQ{_quarters(dimensions)}np"
    index: Any = faiss.index_factory(dimensions, f"IVF{lists},{codes}", faiss.METRIC_INNER_PRODUCT)
    index.cp.seed = _SEED
    made: faiss.Index = index
    return made


def _quarters(dimensions: int) -> int:
    # One byte for four numbers where they divide so, else for as many as do.
    return max(n for n in range(1, dimensions // 4 + 1) if dimensions % n == 0)


def _tuned(exported: _Exported, folder: Path, made: VectorFile, plan: VectorPlan) -> VectorFile:
    if made.kind is Kind.FLAT:
        return made
    queries = _queries(exported.vectors, plan.queries)
    truth = _exhaustive(exported, queries)
    mapped = MappedVectors(folder, made)
    probes, limit = 1, made.lists if made.kind is Kind.SCALAR else max(1, made.lists // 8)
    while True:
        mapped.description = replace(made, probes=probes)
        recall = _recall(exported, mapped, queries, truth)
        if recall >= plan.recall or probes >= limit:
            return replace(made, probes=probes, recall=recall)
        probes = min(2 * probes, limit)


def _queries(vectors: Vector, count: int) -> Vector:
    # Questions lie near passages, yet not on them: half are passages, half between two.
    random = np.random.default_rng(_SEED)
    first, second = (np.sort(random.integers(len(vectors), size=count)) for _ in range(2))
    random.shuffle(second)
    weight = np.where(np.arange(count) % 2, 0.5, 0.0)[:, None]
    mixed = np.asarray(vectors[first]) + weight * np.asarray(vectors[second])
    lengths = np.maximum(np.linalg.norm(mixed, axis=1, keepdims=True), 1e-9)
    found: Vector = (mixed / lengths).astype(np.float32)
    return found


def _exhaustive(exported: _Exported, queries: Vector) -> list[set[int]]:
    best = np.full((len(queries), _NEAREST), -np.inf, dtype=np.float32)
    keys: npt.NDArray[np.int64] = np.full((len(queries), _NEAREST), -1, dtype=np.int64)
    for start in range(0, len(exported.keys), ADDED_AT_ONCE):
        block = slice(start, start + ADDED_AT_ONCE)
        similarities = queries @ np.asarray(exported.vectors[block]).T
        candidates = np.hstack([best, similarities])
        among = np.broadcast_to(exported.keys[block], similarities.shape)
        named = np.hstack([keys, among])
        top = np.argpartition(-candidates, _NEAREST - 1, axis=1)[:, :_NEAREST]
        best = np.take_along_axis(candidates, top, axis=1)
        keys = np.take_along_axis(named, top, axis=1)
    return [set(row.tolist()) for row in keys]


def _recall(
    exported: _Exported, mapped: MappedVectors, queries: Vector, truth: list[set[int]]
) -> float:
    hits = 0
    for query, right in zip(queries, truth, strict=True):
        found = mapped.search(query, _NEAREST, None, 1.0)
        kept = refined(found, query, _NEAREST, lambda keys: exported.of(list(keys)))
        hits += len(right & {key for key, _ in kept})
    return hits / max(1, sum(len(right) for right in truth))
