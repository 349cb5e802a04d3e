"""Faults of collections, as the caller should see them."""

from __future__ import annotations

from orchestrator.errors import (
    CollegiumError,
    InternalError,
    InvalidRequest,
    NotFound,
    Overloaded,
    Unprocessable,
)
from retrieval.errors import (
    CollectionBusy,
    EncoderMismatch,
    InvalidName,
    InvalidQuery,
    MissingDocument,
    RetrievalError,
)


def told(error: RetrievalError, param: str = "name") -> CollegiumError:
    """Return what is raised for the caller; `param` is the field that named the collection."""
    if isinstance(error, MissingDocument):
        return NotFound(str(error), param="document_id", code="document_not_found")
    if isinstance(error, InvalidName):
        return InvalidRequest(str(error), param=param)
    if isinstance(error, InvalidQuery):
        return InvalidRequest(str(error), param="query")
    if isinstance(error, CollectionBusy):
        return Overloaded(str(error), retry_after=5.0)
    if isinstance(error, EncoderMismatch):
        return Unprocessable(str(error))
    return InternalError(str(error))
