"""A vector file: the vectors of one collection as a faiss index, mapped into memory to be read.

It lies beside the collection's SQLite file, which says in a note which vector file is in force.
Replicas on one machine share its pages. Small collections are kept flat (every vector is
compared, recall 1), larger ones in inverted lists of 8-bit codes or product-quantised ones,
whose candidates are compared again by their exact vectors.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from retrieval.schema import Vector

Pairs = list[tuple[int, float]]
"""Passages as (key, cosine similarity), most similar first."""

Exact = Callable[[Sequence[int]], tuple[npt.NDArray[np.int64], Vector]]
"""From keys to those that exist, [n], and their exact vectors, [n, d]."""

# Its stub does not know the arguments that its Python classes take.
_swig: Any = faiss

NOTE = "vector_file"
"""Name of the note that describes the vector file in force."""


class Kind(StrEnum):
    """How a vector file keeps its vectors."""

    FLAT = "flat"
    SCALAR = "ivf-sq8"
    PRODUCT = "ivf-pq"


@dataclass(frozen=True, slots=True)
class VectorFile:
    """What a collection notes of its vector file.

    It holds `count` passages with keys up to `newest`, in the state after `removal`. `lists` are
    the inverted lists, of which `probes` are read for a query; `refine` times the passages asked
    for are compared exactly, none for 0. `recall` at 10 was measured when it was built.
    """

    name: str
    kind: Kind
    count: int
    newest: int
    removal: int
    lists: int
    probes: int
    refine: int
    recall: float
    bytes: int
    sha256: str

    def written(self) -> str:
        """Return the note's text."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def read(cls, note: str) -> VectorFile:
        """Return the description that a note holds."""
        fields = json.loads(note)
        return cls(**{**fields, "kind": Kind(fields["kind"])})

    def present(self, folder: Path) -> bool:
        """Say whether the file is there, with its length."""
        try:
            return (folder / self.name).stat().st_size == self.bytes
        except OSError:
            return False

    def whole(self, folder: Path) -> bool:
        """Say whether the file is there, with the bytes that were written; reads all of it."""
        try:
            return self.present(folder) and file_digest(folder / self.name) == self.sha256
        except OSError:
            return False


class DamagedVectors(Exception):
    """A vector file that cannot be used; whoever writes the collection makes it anew."""


class MappedVectors:
    """A vector file opened for searching; not thread-safe."""

    def __init__(self, folder: Path, description: VectorFile) -> None:
        """Map the file. Raises `DamagedVectors` where it is not what was written."""
        if not description.whole(folder):
            raise DamagedVectors(f"{description.name} is missing or damaged")
        self.description = description
        try:
            self._faiss = read_mapped(folder / description.name)
        except RuntimeError as error:
            raise DamagedVectors(f"{description.name} cannot be read: {error}") from error

    def search(
        self, vector: Vector, limit: int, bitmap: npt.NDArray[np.uint8] | None, share: float
    ) -> Pairs:
        """Return the nearest passages among those in `bitmap`, by approximate similarities.

        `share` is the part of the passages that the bitmap lets through: the smaller it is, the
        more lists are read. The result holds `refine` times `limit` passages.
        """
        about = self.description
        count = min(about.count, limit * max(1, about.refine))
        probes = None
        if about.kind is not Kind.FLAT:
            probes = min(about.lists, int(np.ceil(about.probes / max(share, 1e-6))))
        return nearest(self._faiss, vector, count, parameters(bitmap, probes))


def refined(found: Pairs, vector: Vector, limit: int, exact: Exact) -> Pairs:
    """Return the `limit` best of `found` by the similarity of their exact vectors."""
    if not found:
        return []
    keys, vectors = exact([key for key, _ in found])
    similarities = vectors @ vector if len(keys) else np.empty(0, dtype=np.float32)
    best = np.argsort(-similarities, kind="stable")[:limit]
    return list(zip(keys[best].tolist(), similarities[best].tolist(), strict=True))


def parameters(
    bitmap: npt.NDArray[np.uint8] | None, probes: int | None = None
) -> faiss.SearchParameters:
    """Return how to search: among the keys whose bits are set, in so many inverted lists."""
    # A selector costs a look-up for every vector, so the usual search goes without.
    sel = None if bitmap is None else _swig.IDSelectorBitmap(bitmap)
    if probes is None:
        made: faiss.SearchParameters = _swig.SearchParameters(sel=sel)
    else:
        made = _swig.SearchParametersIVF(sel=sel, nprobe=probes)
    return made


def nearest(
    index: faiss.Index,
    vector: Vector,
    count: int,
    asked: faiss.SearchParameters | None = None,
) -> Pairs:
    """Return up to `count` pairs (key, similarity) from a faiss index, most similar first."""
    if count == 0:
        return []
    with threads(1):
        similarities, keys = index.search(vector.reshape(1, -1), count, params=asked)
    pairs = zip(keys[0].tolist(), similarities[0].tolist(), strict=True)
    # Where it finds too few, faiss fills up with the key -1.
    return [(key, similarity) for key, similarity in pairs if key >= 0]


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Bound the threads of faiss in this thread.

    For one query, waking more threads costs ten times the search where cores are busy.
    """
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(count)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def read_mapped(path: Path) -> faiss.Index:
    """Return a faiss index whose vectors stay in the file. Raises `RuntimeError`."""
    return faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
