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
from retrieval.fusion import Fusion, fuse
from retrieval.index import Index
from retrieval.ingestion import FileResult, Outcome
from retrieval.labels import Labels
from retrieval.original import Original
from retrieval.passage import Passage
from retrieval.reranking import Reranker
from retrieval.search_settings import SearchSettings
from retrieval.sources import licence_texts, python_docs, read_documents
from retrieval.tuning import Labelled, Tuning
from retrieval.vector_build import VectorPlan
from retrieval.vector_file import VectorFile

if TYPE_CHECKING:
    from retrieval.cross_encoder import CrossEncoder
    from retrieval.encoder import Encoder

__all__ = [
    "Attributor",
    "Chunk",
    "Citation",
    "CollectionBusy",
    "CollectionInfo",
    "CorruptCollection",
    "CrossEncoder",
    "Document",
    "EmptySource",
    "Encoder",
    "EncoderMismatch",
    "FileResult",
    "Fusion",
    "Index",
    "InvalidDocument",
    "InvalidEncoder",
    "InvalidName",
    "InvalidQuery",
    "Labelled",
    "Labels",
    "MissingCollection",
    "MissingDocument",
    "Original",
    "Outcome",
    "Passage",
    "Reranker",
    "RetrievalError",
    "SearchSettings",
    "StorageFailed",
    "TextFormat",
    "Tuning",
    "UnreadableSource",
    "VectorFile",
    "VectorPlan",
    "chunk",
    "fuse",
    "licence_texts",
    "originals",
    "python_docs",
    "read_documents",
]


def __getattr__(name: str) -> object:
    # These bring torch, which whoever only carries passages around does not need.
    if name == "Encoder":
        from retrieval.encoder import Encoder

        return Encoder
    if name == "CrossEncoder":
        from retrieval.cross_encoder import CrossEncoder

        return CrossEncoder
    raise AttributeError(f"module 'retrieval' has no attribute {name!r}")
