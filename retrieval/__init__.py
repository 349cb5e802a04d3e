"""Retrieval: documents to passages, searched by words and by meaning, and cited in answers."""

from typing import TYPE_CHECKING

from retrieval.attribution import Attributor, Citation
from retrieval.chunking import Chunk, chunk
from retrieval.collection import CollectionInfo
from retrieval.document import Document, TextFormat
from retrieval.errors import (
    CollectionBusy,
    CorruptCollection,
    EmptySource,
    EncoderMismatch,
    InvalidDocument,
    InvalidEncoder,
    InvalidName,
    InvalidQuery,
    MissingCollection,
    MissingDocument,
    RetrievalError,
    StorageFailed,
    UnreadableSource,
)
from retrieval.folder import originals
from retrieval.fusion import fuse
from retrieval.index import Index
from retrieval.ingestion import FileResult, Outcome
from retrieval.labels import Labels
from retrieval.original import Original
from retrieval.passage import Passage
from retrieval.sources import licence_texts, python_docs, read_documents

if TYPE_CHECKING:
    from retrieval.encoder import Encoder

__all__ = [
    "Attributor",
    "Chunk",
    "Citation",
    "CollectionBusy",
    "CollectionInfo",
    "CorruptCollection",
    "Document",
    "EmptySource",
    "Encoder",
    "EncoderMismatch",
    "FileResult",
    "Index",
    "InvalidDocument",
    "InvalidEncoder",
    "InvalidName",
    "InvalidQuery",
    "Labels",
    "MissingCollection",
    "MissingDocument",
    "Original",
    "Outcome",
    "Passage",
    "RetrievalError",
    "StorageFailed",
    "TextFormat",
    "UnreadableSource",
    "chunk",
    "fuse",
    "licence_texts",
    "originals",
    "python_docs",
    "read_documents",
]


def __getattr__(name: str) -> object:
    # The encoder brings torch, which whoever only carries passages around does not need.
    if name == "Encoder":
        from retrieval.encoder import Encoder

        return Encoder
    raise AttributeError(f"module 'retrieval' has no attribute {name!r}")
