"""The index: all collections under one folder, filled and searched through one object."""

from __future__ import annotations

import builtins
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from retrieval.chunking import Chunk, chunk
from retrieval.collection import (
    Collection,
    CollectionInfo,
    CollectionWriter,
    Ranking,
    collection_names,
    missing,
    remove_collection,
    valid_name,
)
from retrieval.document import Document
from retrieval.errors import EncoderMismatch, InvalidQuery, MissingCollection
from retrieval.finding import NOTHING, Finding
from retrieval.fusion import fuse
from retrieval.passage import Passage
from retrieval.schema import Vector
from retrieval.store import StoredPassage
from retrieval.vectors import unit
from retrieval.words import query_words

SEARCH_DEPTH = 50
"""Passages that each of the two rankings brings to the fusion, at least."""

QUERY_WORDS = 64
"""Distinct words of a query that are searched for."""

ENCODED_TOGETHER = 64
"""Passages that are gathered before the encoder is called while adding."""

PROBE = "Every collection remembers the encoder that made it by its vector of this sentence."
"""The text whose vector identifies an encoder."""

_Item = tuple[int, int]
"""A passage among several collections: the collection's place, and the passage's key in it."""

Encode = Callable[[Sequence[str]], npt.NDArray[np.float32]]


class Index:
    """Collections under the folder `root`; safe to use from several threads and processes.

    `encoder` maps n texts to float32 vectors of unit length, [n, d]; it is called for what is
    added, and for a query that comes without its vector.
    """

    def __init__(self, root: Path, encoder: Encode) -> None:
        """Nothing is read or made until it is needed."""
        self._root = root
        self._encoder = encoder
        self._opened: dict[str, Collection] = {}
        self._lock = threading.Lock()

    def add(
        self,
        collection: str,
        documents: Iterable[Document],
        progress: Callable[[int], None] | None = None,
    ) -> int:
        """Add documents, making the collection if need be, and return how many were written.

        A document that is stored already, unchanged, is skipped; a changed one is replaced.
        Each document is on disk once `progress` was called with its count: `progress(n)` says
        that the first n documents are done. Raises `InvalidName`, `EncoderMismatch`,
        `CollectionBusy`; what was done before the error stays.
        """
        valid_name(collection)
        self._root.mkdir(parents=True, exist_ok=True)
        writer = CollectionWriter(self._root, collection, self._probe)
        try:
            return self._add(writer, documents, progress or (lambda done: None))
        finally:
            writer.close()

    def list(self) -> builtins.list[CollectionInfo]:
        """Return the figures of every collection, by name."""
        return [self._open(name).info() for name in collection_names(self._root)]

    def remove(self, collection: str, document_id: str | None = None) -> None:
        """Remove a document, or the whole collection without one.

        Raises `MissingCollection`, `MissingDocument`, `CollectionBusy`.
        """
        if document_id is None:
            remove_collection(self._root, collection)
            return
        self._open(collection)
        writer = CollectionWriter(self._root, collection, self._probe)
        try:
            writer.delete(document_id)
        finally:
            writer.close()

    def document(self, collection: str, document_id: str) -> Document:
        """Return a stored document. Raises `MissingCollection`, `MissingDocument`."""
        return self._open(collection).document(document_id)

    def search(
        self,
        text: str,
        vector: npt.ArrayLike | None,
        collections: Sequence[str],
        top_k: int,
    ) -> builtins.list[Passage]:
        """Return the `top_k` best passages for a query over several collections, best first.

        Passages are ranked by BM25 and by cosine similarity to `vector` (shape [d]; None
        encodes `text`), and the two rankings are fused by reciprocal ranks. Raises
        `MissingCollection` naming what exists, and `InvalidQuery`.
        """
        if top_k < 1:
            raise InvalidQuery(f"top_k must be at least 1, not {top_k}.")
        opened = [self._open(name) for name in dict.fromkeys(collections)]
        if not opened:
            return []
        query = query_words(text, QUERY_WORDS)
        direction = self._direction(text, vector)
        depth = max(SEARCH_DEPTH, top_k)
        rankings = [collection.rank(query, direction, depth) for collection in opened]
        return _best(opened, rankings, query, direction, top_k)

    def survey(
        self,
        text: str,
        vector: npt.ArrayLike | None,
        collections: Sequence[str],
        top_k: int,
    ) -> builtins.list[Finding]:
        """Return what each collection holds for a query, as a search in it alone would find it.

        Collections that do not exist are left out. Raises `InvalidName` and `InvalidQuery`.
        """
        if top_k < 1:
            raise InvalidQuery(f"top_k must be at least 1, not {top_k}.")
        query = query_words(text, QUERY_WORDS)
        direction = self._direction(text, vector)
        findings = []
        for name in dict.fromkeys(collections):
            try:
                opened = self._open(name)
            except MissingCollection:
                continue
            ranking = opened.rank(query, direction, max(SEARCH_DEPTH, top_k))
            passages = tuple(_best([opened], [ranking], query, direction, top_k))
            closest = ranking.by_vector[0][1] if ranking.by_vector else NOTHING
            findings.append(Finding(name, closest, passages))
        return findings

    def close(self) -> None:
        """Close every opened collection."""
        with self._lock:
            for collection in self._opened.values():
                collection.close()
            self._opened.clear()

    @cached_property
    def _probe(self) -> Vector:
        probe: Vector = self._encode([PROBE])[0]
        return probe

    def _encode(self, texts: Sequence[str]) -> Vector:
        vectors = np.asarray(self._encoder(texts), dtype=np.float32)
        if vectors.ndim != 2 or len(vectors) != len(texts) or not np.isfinite(vectors).all():
            raise EncoderMismatch(
                f"The encoder gave an array of shape {vectors.shape} for {len(texts)} texts; "
                "one finite vector per text was expected."
            )
        return vectors

    def _direction(self, text: str, vector: npt.ArrayLike | None) -> Vector:
        direction = unit(self._encode([text])[0] if vector is None else vector)
        if direction.ndim != 1 or not np.isfinite(direction).all():
            raise InvalidQuery("The query vector must be one row of finite numbers.")
        return direction

    def _open(self, name: str) -> Collection:
        valid_name(name)
        with self._lock:
            opened = self._opened.get(name)
            if opened is not None and opened.is_current():
                return opened
            if opened is not None:
                del self._opened[name]
            if name not in collection_names(self._root):
                raise missing(self._root, name)
            self._opened[name] = Collection(self._root, name, self._probe)
            return self._opened[name]

    def _add(
        self,
        writer: CollectionWriter,
        documents: Iterable[Document],
        progress: Callable[[int], None],
    ) -> int:
        done = written = 0
        for group in _groups(documents, writer.digests()):
            texts = [_embedded(document, part) for document, chunks in group for part in chunks]
            vectors = self._encode(texts) if texts else np.empty((0, 0), dtype=np.float32)
            for document, chunks in group:
                if chunks:
                    writer.put(document, chunks, vectors[: len(chunks)])
                    vectors = vectors[len(chunks) :]
                    written += 1
                done += 1
                progress(done)
        return written


def _groups(
    documents: Iterable[Document], stored: dict[str, str]
) -> Iterator[list[tuple[Document, list[Chunk]]]]:
    group: list[tuple[Document, list[Chunk]]] = []
    waiting = 0
    for document in documents:
        unchanged = stored.get(document.id) == document.digest
        chunks = [] if unchanged else chunk(document.text, document.format)
        stored[document.id] = document.digest
        group.append((document, chunks))
        waiting += max(1, len(chunks))
        if waiting >= ENCODED_TOGETHER:
            yield group
            group, waiting = [], 0
    yield group


def _embedded(document: Document, chunk: Chunk) -> str:
    context = [part for part in (document.title, chunk.heading) if part]
    return "\n".join([*context, chunk.text])


def _fused(rankings: Sequence[Ranking], depth: int) -> list[tuple[_Item, float]]:
    by_words: list[tuple[float, _Item]] = []
    by_vector: list[tuple[float, _Item]] = []
    for place, ranking in enumerate(rankings):
        by_words += [(-score, (place, key)) for key, score in ranking.by_words]
        by_vector += [(-score, (place, key)) for key, score in ranking.by_vector]
    return fuse([[item for _, item in sorted(scores)[:depth]] for scores in (by_words, by_vector)])


def _best(
    opened: Sequence[Collection],
    rankings: Sequence[Ranking],
    query: Sequence[str],
    direction: Vector,
    top_k: int,
) -> builtins.list[Passage]:
    scores = dict(_fused(rankings, max(SEARCH_DEPTH, top_k))[:top_k])
    found: dict[_Item, Passage] = {}
    for place, (collection, ranking) in enumerate(zip(opened, rankings, strict=True)):
        keys = [key for owner, key in scores if owner == place]
        for row, bm25 in collection.passages(keys, query, ranking).values():
            item = (place, row.key)
            found[item] = _passage(collection.name, row, scores[item], direction, bm25)
    return [found[item] for item in scores if item in found]


def _passage(
    collection: str, row: StoredPassage, score: float, direction: Vector, bm25: float
) -> Passage:
    return Passage(
        passage_id=row.passage_id,
        document_id=row.document_id,
        collection=collection,
        title=row.title,
        url=row.url,
        text=row.text,
        start=row.start,
        end=row.end,
        score=score,
        similarity=float(row.vector @ direction),
        bm25=bm25,
    )
