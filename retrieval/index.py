"""The index: all collections under one folder, filled and searched through one object."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from retrieval.catalogue import DocumentInfo
from retrieval.collection import (
    Collection,
    CollectionInfo,
    CollectionWriter,
    Ranking,
    valid_name,
)
from retrieval.document import Document
from retrieval.errors import EncoderMismatch, InvalidQuery, MissingCollection, UnreadableSource
from retrieval.finding import NOTHING, Finding, passage_of
from retrieval.fusion import fuse
from retrieval.ingestion import FileResult, Ingestion
from retrieval.intake import Intake
from retrieval.labels import Labels
from retrieval.openings import Openings
from retrieval.original import Original
from retrieval.passage import Passage
from retrieval.removal import remove_collection, sweep
from retrieval.schema import Vector
from retrieval.sqlite_errors import accessible
from retrieval.vectors import unit
from retrieval.words import query_words

SEARCH_DEPTH = 50
"""Passages that each of the two rankings brings to the fusion, at least."""

QUERY_WORDS = 64
"""Distinct words of a query that are searched for."""

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
        self._openings = Openings(root, lambda: self._probe)

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
        done = written = 0

        def tell() -> None:
            nonlocal done
            done += 1
            if progress is not None:
                progress(done)

        with self._writer(collection) as writer:
            intake = Intake(writer, self._encode)
            for document in documents:
                written += intake.add(document, done=tell) > 0
            intake.flush()
        return written

    def ingest(
        self,
        collection: str,
        files: Iterable[Original | Document | UnreadableSource],
        labels: Labels | None = None,
        report: Callable[[FileResult], None] | None = None,
        *,
        encoded: Callable[[int], None] | None = None,
        prune: Sequence[Path] = (),
    ) -> builtins.list[FileResult]:
        """Add files, making the collection if need be, and return what became of each.

        A fault of one file is told in its result and the rest goes on. `report` is called with a
        result once what it tells is on disk, `encoded` with the number of passages that the encoder
        has just done. What was added from the folders `prune` and is gone from there is removed.
        Raises `InvalidName`, `EncoderMismatch`, `CollectionBusy`; what was reported stays.
        """
        valid_name(collection)
        results: builtins.list[FileResult] = []

        def tell(result: FileResult) -> None:
            results.append(result)
            if report is not None:
                report(result)

        with self._writer(collection) as writer:
            intake = Intake(writer, self._encode, encoded)
            ingestion = Ingestion(writer, intake, labels or Labels(), tell)
            for file in files:
                ingestion.take(file)
            for folder in prune:
                ingestion.prune(folder)
            ingestion.finish()
        return results

    def list(self, names: Container[str] | None = None) -> builtins.list[CollectionInfo]:
        """Return the figures of every collection, or of those among `names`, by name.

        One that cannot be opened is left out and told in the log.
        """
        return self._openings.infos(names)

    def remove(self, collection: str, document_id: str | None = None) -> None:
        """Remove a document, or the whole collection without one.

        Raises `MissingCollection`, `MissingDocument`, `CollectionBusy`.
        """
        if document_id is None:
            remove_collection(self._root, collection)
            self._openings.forget(collection)
            return
        self._openings.get(collection)
        with self._writer(collection) as writer:
            writer.delete(document_id)

    def info(self, collection: str) -> CollectionInfo:
        """Return the figures of one collection. Raises `MissingCollection`."""
        return self._openings.get(collection).info()

    def documents(
        self, collection: str, limit: int = 100, after: str = ""
    ) -> builtins.list[DocumentInfo]:
        """Return up to `limit` documents by their ids, those behind the id `after`.

        Raises `MissingCollection`.
        """
        return self._openings.get(collection).documents(limit, after)

    def document(self, collection: str, document_id: str) -> Document:
        """Return a stored document. Raises `MissingCollection`, `MissingDocument`."""
        return self._openings.get(collection).document(document_id)

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
        opened = [self._openings.get(name) for name in dict.fromkeys(collections)]
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
                opened = self._openings.get(name)
            except MissingCollection:
                continue
            ranking = opened.rank(query, direction, max(SEARCH_DEPTH, top_k))
            passages = tuple(_best([opened], [ranking], query, direction, top_k))
            closest = ranking.by_vector[0][1] if ranking.by_vector else NOTHING
            findings.append(Finding(name, closest, passages))
        return findings

    def close(self) -> None:
        """Close every opened collection."""
        self._openings.close()

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

    @contextmanager
    def _writer(self, collection: str) -> Iterator[CollectionWriter]:
        with accessible(collection):
            self._root.mkdir(parents=True, exist_ok=True)
        sweep(self._root)
        writer = CollectionWriter(self._root, collection, self._probe)
        try:
            yield writer
        finally:
            writer.close()


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
            found[item] = passage_of(collection.name, row, scores[item], direction, bm25)
    return [found[item] for item in scores if item in found]
