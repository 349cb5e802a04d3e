"""Everything that retrieval refuses, with the reason in its message.

    RetrievalError
    ├── InvalidName          a collection name outside the allowed pattern
    ├── InvalidDocument      a document without id or text, or with text that is not Unicode
    ├── InvalidQuery         a search with top_k below 1 or a vector that is not one
    ├── MissingCollection    no collection of that name; the message lists those that exist
    ├── MissingDocument      no document of that id in the collection
    ├── CollectionBusy       another writer held the collection for too long
    ├── CorruptCollection    the file on disk is not a collection of this version
    ├── StorageFailed        the file cannot be read or written: disk full, permissions, ...
    ├── EncoderMismatch      vectors of another encoder or of another length
    ├── InvalidEncoder       a folder that holds no usable sentence encoder
    └── UnreadableSource     a file that cannot be read as documents
        └── EmptySource      a file without any text

Every error is made from one message, so it pickles across process boundaries.
"""


class RetrievalError(Exception):
    """Root of the tree above; `str(error)` is one sentence for the person who asked."""


class InvalidName(RetrievalError, ValueError):
    """A collection name outside the allowed pattern."""


class InvalidDocument(RetrievalError, ValueError):
    """A document that cannot be stored."""


class InvalidQuery(RetrievalError, ValueError):
    """A search that cannot be run as asked."""


class MissingCollection(RetrievalError, LookupError):
    """A collection that does not exist."""


class MissingDocument(RetrievalError, LookupError):
    """A document that is not in the collection."""


class CollectionBusy(RetrievalError, TimeoutError):
    """Another writer held the collection's lock for longer than the limit."""


class CorruptCollection(RetrievalError):
    """The file on disk is damaged, or was written by another version."""


class StorageFailed(RetrievalError, OSError):
    """The collection's file cannot be read or written."""


class EncoderMismatch(RetrievalError, ValueError):
    """The vectors at hand and the stored ones come from different encoders."""


class InvalidEncoder(RetrievalError, ValueError):
    """A folder that is not a supported sentence encoder."""


class UnreadableSource(RetrievalError, ValueError):
    """A file or folder that cannot be read as documents."""


class EmptySource(UnreadableSource):
    """A file without any text."""
