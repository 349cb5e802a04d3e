"""Ingestion: files into a collection, each told of by itself, whatever happens to the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path

from retrieval.collection import CollectionWriter
from retrieval.document import Document
from retrieval.errors import EmptySource, InvalidDocument, UnreadableSource
from retrieval.files import read_file
from retrieval.intake import Intake, Origin
from retrieval.labels import Labels
from retrieval.original import Original
from retrieval.origins import Origins
from retrieval.ownership import Ownership
from retrieval.readers.registry import is_program
from retrieval.store import Store

MOST_ERRORS = 20
"""Errors of one file that are told; others are counted."""


class Outcome(StrEnum):
    """What became of a file.

    `added`: all its documents are in, `documents` of them new or changed. `unchanged`: they were in
    already. `empty`: a program without a line. `removed`: it was gone from its folder. `failed`:
    `errors` say why; of a file with many documents the good ones are in.
    """

    ADDED = "added"
    UNCHANGED = "unchanged"
    EMPTY = "empty"
    REMOVED = "removed"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class FileResult:
    """One file of an ingestion; `documents` and `passages` count what was written."""

    file: str
    outcome: Outcome
    documents: int = 0
    passages: int = 0
    errors: tuple[str, ...] = ()


Report = Callable[[FileResult], None]


@dataclass
class _Tally:
    """What was met in a file so far."""

    ids: set[str]
    errors: list[str]
    faults: int = 0
    documents: int = 0
    passages: int = 0

    def fault(self, message: str) -> None:
        self.faults += 1
        if len(self.errors) < MOST_ERRORS:
            self.errors.append(message)

    def told(self) -> tuple[str, ...]:
        hidden = self.faults - len(self.errors)
        return (*self.errors, *([f"and {hidden} more errors"] if hidden else []))


class Ingestion:
    """Adds files one after the other; `report` is called with each once its documents are on disk.

    A file that was added before with the same bytes and labels is not read again. Of a changed file
    only the changed documents are written, and those that it no longer holds are removed.
    """

    def __init__(
        self, writer: CollectionWriter, intake: Intake, labels: Labels, report: Report
    ) -> None:
        self._writer, self._intake = writer, intake
        self._labels, self._report = labels, report
        self._recipe = labels.recipe
        self._owners = Ownership(writer)
        self._taken: dict[Origin, str] = {}

    def take(self, file: Original | Document | UnreadableSource) -> None:
        """Take a file, a document that stands for itself, or the reason why one cannot be taken.

        The message of that reason names the file.
        """
        if isinstance(file, UnreadableSource):
            self._refuse("", file)
        elif isinstance(file, Document):
            self._add_document(file)
        else:
            self._add(file)

    def prune(self, folder: Path) -> None:
        """Remove the documents of files that were added from `folder` and are gone from there."""
        root = str(folder.resolve())
        with self._writer.reading() as store:
            known = [] if store is None else Origins(store.connection).below(root)
        for key, path in known:
            if not Path(root, path).is_file():
                gone = FileResult(path, Outcome.REMOVED)
                write, done = partial(_remove, key=key), partial(self._report, gone)
                self._intake.then(write, done, removes=True)

    def finish(self) -> None:
        """Write what is left."""
        self._intake.flush()

    def _add(self, original: Original) -> None:
        try:
            sha256 = original.sha256()
        except UnreadableSource as error:
            self._refuse(original.name, error)
            return
        origin = _origin(original)
        taken = self._taken.get(origin)
        if taken is not None and taken != sha256:
            twice = UnreadableSource(f"{original.name!r} was given twice, with other bytes.")
            self._refuse(original.name, twice)
        elif taken is not None or self._is_in(origin, sha256):
            self._tell(FileResult(original.name, Outcome.UNCHANGED))
        else:
            self._read(original, sha256)

    def _add_document(self, document: Document) -> None:
        refusal = self._owners.claim_alone(document.id)
        if refusal:
            self._refuse(document.id, UnreadableSource(refusal))
            return
        try:
            written = self._intake.add(document)
        except InvalidDocument as error:
            self._refuse(document.id, error)
            return
        outcome = Outcome.ADDED if written else Outcome.UNCHANGED
        self._tell(FileResult(document.id, outcome, int(written > 0), written))

    def _refuse(self, name: str, error: UnreadableSource | InvalidDocument) -> None:
        self._tell(FileResult(name, Outcome.FAILED, errors=(str(error),)))

    def _read(self, original: Original, sha256: str) -> None:
        tally, origin = _Tally(set(), []), _origin(original)
        # An id that a file before gave up is free.
        self._intake.settle()
        for found in read_file(original, self._labels, sha256):
            if isinstance(found, EmptySource) and is_program(original.name):
                continue
            if isinstance(found, UnreadableSource):
                tally.fault(str(found))
            else:
                self._take(found, origin, tally)
        self._end(origin, sha256, tally)

    def _take(self, document: Document, origin: Origin, tally: _Tally) -> None:
        refusal = self._owners.claim(document.id, origin)
        if refusal:
            tally.fault(refusal)
            return
        tally.ids.add(document.id)
        try:
            written = self._intake.add(document, origin)
        except InvalidDocument as error:
            tally.fault(f"{origin.path!r}: {error}")
            return
        tally.documents += written > 0
        tally.passages += written

    def _end(self, origin: Origin, sha256: str, tally: _Tally) -> None:
        if tally.faults:
            outcome, removes = Outcome.FAILED, False
            write: Callable[[Store], None] | None = None
        else:
            self._taken[origin] = sha256
            outcome = Outcome.ADDED if tally.ids else Outcome.EMPTY
            removes = not self._held(origin) <= tally.ids
            write = partial(
                _complete, origin=origin, sha256=sha256, recipe=self._recipe, ids=tally.ids
            )
        result = FileResult(origin.path, outcome, tally.documents, tally.passages, tally.told())
        self._intake.then(write, lambda: self._report(result), removes=removes)

    def _is_in(self, origin: Origin, sha256: str) -> bool:
        with self._writer.reading() as store:
            if store is None:
                return False
            state = Origins(store.connection).state(origin.root, origin.path)
        return state == (sha256, self._recipe)

    def _held(self, origin: Origin) -> set[str]:
        """The ids that are stored as this file's."""
        with self._writer.reading() as store:
            return (
                set() if store is None else Origins(store.connection).held(origin.root, origin.path)
            )

    def _tell(self, result: FileResult) -> None:
        self._intake.then(None, lambda: self._report(result))


def _origin(original: Original) -> Origin:
    return Origin(original.root, original.name)


def _complete(store: Store, origin: Origin, sha256: str, recipe: str, ids: set[str]) -> None:
    origins = Origins(store.connection)
    key = origins.open(origin.root, origin.path)
    for document_id in set(origins.documents(key)) - ids:
        store.remove(document_id)
    origins.complete(key, sha256, recipe)


def _remove(store: Store, key: int) -> None:
    origins = Origins(store.connection)
    for document_id in origins.documents(key):
        store.remove(document_id)
    origins.forget(key)
