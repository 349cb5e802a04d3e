"""The index: all collections under one folder, filled and searched through one object."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy.typing as npt

from retrieval.candidates import Candidates
from retrieval.catalogue import DocumentInfo
from retrieval.checked_encoder import CheckedEncoder, Encode
from retrieval.collection import Collection, CollectionInfo, CollectionWriter, valid_name
from retrieval.document import Document
from retrieval.errors import MissingCollection, UnreadableSource
from retrieval.filters import Condition, Filter
from retrieval.finding import Finding
from retrieval.ingestion import FileResult, Ingestion
from retrieval.intake import Intake
from retrieval.labels import Labels
from retrieval.openings import Openings
from retrieval.original import Original
from retrieval.passage import Passage
from retrieval.reading import Reads
from retrieval.removal import remove_collection, sweep
from retrieval.reranking import Reranker
from retrieval.search_settings import SearchSettings
from retrieval.searching import find, survey
from retrieval.sqlite_errors import accessible
from retrieval.tuned_weight import FUSION_NOTE, weight_note
from retrieval.tuning import Labelled, Tuning, tune
from retrieval.vector_build import VectorPlan
from retrieval.vector_file import VectorFile
from retrieval.vector_keeper import VectorKeeper


class Index:
    """Collections under the folder `root`; safe to use from several threads and processes.

    `encoder` maps n texts to float32 vectors of unit length, [n, d]; it is called for what is
    added, and for a query that comes without its vector. `reads` says how well it knows the words
    of a query, in 0..1: the less, the less its vector counts.
    """

    def __init__(
        self,
        root: Path,
        encoder: Encode,
        settings: SearchSettings | None = None,
        *,
        encode_query: Encode | None = None,
        reranker: Reranker | None = None,
        plan: VectorPlan | None = None,
        reads: Reads | None = None,
    ) -> None:
        """Nothing is read or made until it is needed."""
        self._root = root
        self._encoder = CheckedEncoder(encoder, encode_query, reads)
        self._settings = settings or SearchSettings()
        self._reranker = reranker
        self._keeper = VectorKeeper(root, plan or VectorPlan())
        self._openings = Openings(root, lambda: self._encoder.probe)

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
            intake = Intake(writer, self._encoder.passages)
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
            intake = Intake(writer, self._encoder.passages, encoded)
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

    def versions(self, names: Iterable[str]) -> dict[str, str]:
        """Return digests of what collections hold and how it is searched, of those that exist.

        Two collections of the same documents have the same one. Raises `InvalidName`.
        """
        return {one.name: one.content_version() for one in self._existing(names)}

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
        filter: Filter | Condition | None = None,
    ) -> builtins.list[Passage]:
        """Return the `top_k` best passages for a query over several collections, best first.

        Passages are ranked by BM25 and by cosine similarity to `vector` (shape [d]; None
        encodes `text`), and the two rankings are fused as the settings say. `filter` limits
        the search to documents of which it holds, before anything is ranked (see
        `retrieval.filters`). Raises `MissingCollection` naming what exists, and `InvalidQuery`.
        """
        opened = [self._openings.get(name) for name in dict.fromkeys(collections)]
        if not opened:
            return []
        question = self._encoder.asked(text, vector, filter)
        found = find(opened, question, top_k, self._settings, self._reranker)
        self._look_after(opened)
        return found

    def survey(
        self,
        text: str,
        vector: npt.ArrayLike | None,
        collections: Sequence[str],
        top_k: int,
        filter: Filter | Condition | None = None,
    ) -> builtins.list[Finding]:
        """Return what each collection holds for a query, for `best_of` to join any of them.

        The passages of one or more findings are those that `search` finds in their collections.
        Collections that do not exist are left out. Raises `InvalidName` and `InvalidQuery`.
        """
        question = self._encoder.asked(text, vector, filter)
        opened = self._existing(collections)
        findings = survey(opened, question, top_k, self._settings, self._reranker)
        self._look_after(opened)
        return findings

    def tune(self, collection: str, labelled: Sequence[Labelled], *, keep: bool = True) -> Tuning:
        """Find how a collection weighs meaning against words, on labelled questions.

        With `keep` the weight is written to the collection, and used from then on, if it did no
        worse than the usual one on held-out questions. Raises `InvalidQuery`, `MissingCollection`.
        """
        opened = self._openings.get(collection)
        settings = self._settings

        def candidates(text: str) -> Candidates:
            question = self._encoder.asked(text)
            found = opened.rank(question.words, question.vector, settings.candidates)
            return replace(found, reads=question.reads)

        def documents(keys: Sequence[int]) -> dict[int, str]:
            return {key: row.document_id for key, row in opened.passages(keys).items()}

        found = tune(labelled, candidates, documents, settings.dense_weight, settings.candidates)
        if keep and found.worthwhile:
            self._note(collection, FUSION_NOTE, weight_note(found.weight))
        return found

    def untune(self, collection: str) -> None:
        """Make a collection weigh meaning against words as others do. Raises as `tune`."""
        self._openings.get(collection)
        self._note(collection, FUSION_NOTE, None)

    def refresh(self, collection: str, *, force: bool = True) -> VectorFile | None:
        """Make a collection's vector file now, without `force` only if it is time for that.

        None where none is needed, and where another process is at it; who writes does it in the
        background. Raises `MissingCollection`, `CollectionBusy`, `OSError`.
        """
        # A file of the former format is brought up to date when it is opened.
        self._openings.get(collection)
        return self._keeper.refresh(collection, force=force)

    def vector_file(self, collection: str) -> VectorFile | None:
        """Return what is known of the vector file that searches of a collection use, if any."""
        return self._openings.get(collection).vector_file()

    def settle(self) -> None:
        """Wait for the vector files that are being made in the background."""
        self._keeper.settle()

    def close(self) -> None:
        """Close every opened collection."""
        self._openings.close()

    def _note(self, collection: str, name: str, value: str | None) -> None:
        with self._writer(collection) as writer:
            writer.note(name, value)

    def _look_after(self, opened: Iterable[Collection]) -> None:
        for collection in opened:
            if collection.damaged:
                self._keeper.look_after(collection.name, suspect=True)

    def _existing(self, names: Iterable[str]) -> builtins.list[Collection]:
        found = []
        for name in dict.fromkeys(names):
            try:
                found.append(self._openings.get(name))
            except MissingCollection:
                continue
        return found

    @contextmanager
    def _writer(self, collection: str) -> Iterator[CollectionWriter]:
        with accessible(collection):
            self._root.mkdir(parents=True, exist_ok=True)
        sweep(self._root)
        writer = CollectionWriter(self._root, collection, self._encoder.probe)
        try:
            yield writer
        finally:
            writer.close()
            self._keeper.look_after(collection)
