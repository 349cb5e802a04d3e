"""Errands to the collections: what the gateway has the Retriever do besides searching for chats.

Each is a frozen value that crosses to the Retriever's process and is run there on the index.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from retrieval.catalogue import DocumentInfo
from retrieval.collection import CollectionInfo
from retrieval.document import Document
from retrieval.errors import UnreadableSource
from retrieval.filters import EVERYTHING, Condition
from retrieval.index import Index
from retrieval.ingestion import FileResult
from retrieval.labels import Labels
from retrieval.original import Original
from retrieval.passage import Passage

Found = TypeVar("Found", covariant=True)


class Errand(Protocol[Found]):
    """Something to do with the collections; raises `RetrievalError`."""

    def run(self, index: Index) -> Found:
        """Do it."""
        ...


@dataclass(frozen=True)
class ListCollections:
    """The figures of the collections of these names that exist; None means all."""

    names: frozenset[str] | None = None

    def run(self, index: Index) -> list[CollectionInfo]:
        """See `Errand`."""
        return index.list(self.names)


@dataclass(frozen=True)
class DescribeCollection:
    """The figures of one collection."""

    collection: str

    def run(self, index: Index) -> CollectionInfo:
        """See `Errand`."""
        return index.info(self.collection)


@dataclass(frozen=True)
class ListDocuments:
    """Up to `limit` documents behind the id `after`."""

    collection: str
    limit: int
    after: str

    def run(self, index: Index) -> list[DocumentInfo]:
        """See `Errand`."""
        return index.documents(self.collection, self.limit, self.after)


@dataclass(frozen=True)
class FetchDocument:
    """One document with its text."""

    collection: str
    document: str

    def run(self, index: Index) -> Document:
        """See `Errand`."""
        return index.document(self.collection, self.document)


@dataclass(frozen=True)
class Remove:
    """One document, or the whole collection without one."""

    collection: str
    document: str | None = None

    def run(self, index: Index) -> None:
        """See `Errand`."""
        index.remove(self.collection, self.document)


@dataclass(frozen=True)
class ContentVersions:
    """What the collections of these names hold, by a digest; those that do not exist are absent."""

    collections: tuple[str, ...]

    def run(self, index: Index) -> dict[str, str]:
        """See `Errand`."""
        return index.versions(self.collections)


@dataclass(frozen=True)
class SearchPassages:
    """The best passages of one collection, of documents that meet the condition."""

    collection: str
    query: str
    top_k: int
    condition: Condition = EVERYTHING

    def run(self, index: Index) -> list[Passage]:
        """See `Errand`."""
        return index.search(self.query, None, [self.collection], self.top_k, self.condition)


@dataclass(frozen=True)
class Upload:
    """One file of an upload, by the name that its sender gave it."""

    name: str
    data: bytes = field(repr=False)
    media_type: str = ""


@dataclass(frozen=True)
class Ingest:
    """Files and documents for one collection."""

    collection: str
    uploads: tuple[Upload, ...] = ()
    documents: tuple[Document, ...] = ()
    labels: Labels = field(default_factory=Labels)

    def run(self, index: Index) -> list[FileResult]:
        """See `Errand`."""
        return index.ingest(self.collection, self._items(), self.labels)

    def _items(self) -> Iterator[Original | Document | UnreadableSource]:
        yield from self.documents
        for upload in self.uploads:
            try:
                yield Original.of(upload.name, upload.data, upload.media_type)
            except UnreadableSource as error:
                yield error
