"""The words spoken about collections over HTTP: what is sent to them and what comes back.

Requests are strict, responses lenient, as in `orchestrator.wire`.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, Strict

from orchestrator.strict_model import StrictModel

MOST_HITS = 100
"""Passages of one search."""

Scalar = Annotated[bool, Strict()] | Annotated[int, Strict()] | Annotated[float, Strict()] | str
Metadata = Annotated[dict[str, Scalar], Field(max_length=64)]


class DocumentInput(StrictModel):
    """A document that is sent as JSON; `format` says how it is cut, `text` or `markdown`."""

    id: Annotated[str, Field(min_length=1, max_length=512)]
    text: Annotated[str, Field(min_length=1)]
    title: Annotated[str, Field(max_length=300)] = ""
    url: str = ""
    license: str = ""
    source: str = ""
    lang: str = ""
    metadata: Metadata = Field(default_factory=dict)
    format: Literal["text", "markdown"] = "text"


class DocumentsRequest(StrictModel):
    """The JSON body of `POST /v1/collections/{name}/documents`."""

    documents: Annotated[list[DocumentInput], Field(min_length=1, max_length=10_000)]


class UploadLabels(StrictModel):
    """What an upload says of all its files, in the fields of the form; `metadata` is JSON there."""

    license: str = ""
    lang: str = ""
    metadata: Metadata = Field(default_factory=dict)
    base_url: str = ""


class SearchRequest(StrictModel):
    """The body of `POST /v1/collections/{name}/search`.

    `filter` limits the search to documents of which it holds, as `routing.filter` does a chat's.
    """

    query: Annotated[str, Field(min_length=1, max_length=8_192)]
    top_k: Annotated[int, Strict(), Field(ge=1, le=MOST_HITS)] = 5
    filter: dict[str, JsonValue] | None = None


class _Response(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class CollectionCard(_Response):
    """One collection; `bytes` is its size on disk, `writable` whether the caller may change it."""

    object: Literal["collection"] = "collection"
    id: str
    documents: int
    passages: int
    dimensions: int
    bytes: int
    writable: bool


class CollectionList(_Response):
    """The body that answers `GET /v1/collections`."""

    object: Literal["list"] = "list"
    data: list[CollectionCard]


class DocumentCard(_Response):
    """One stored document. `added` is in seconds since 1970; `text` comes with a single one."""

    object: Literal["collection.document"] = "collection.document"
    id: str
    collection: str
    title: str
    url: str
    license: str
    source: str
    format: str
    lang: str
    metadata: Mapping[str, Any]
    file: str
    sha256: str
    added: float | None
    pages: int
    passages: int | None = None
    text: str | None = None


class DocumentList(_Response):
    """The body that answers `GET .../documents`; ask for more with `after`, the last id."""

    object: Literal["list"] = "list"
    data: list[DocumentCard]
    has_more: bool


class FileReport(_Response):
    """What became of one file or document: `added`, `unchanged`, `empty` or `failed`."""

    file: str
    outcome: str
    documents: int
    passages: int
    errors: list[str]


class IngestionReport(_Response):
    """The body that answers an upload: each file, and how many came to which end."""

    object: Literal["collection.ingestion"] = "collection.ingestion"
    collection: str
    counts: dict[str, int]
    documents: int
    passages: int
    files: list[FileReport]


class Deletion(_Response):
    """The body that answers `DELETE`."""

    object: Literal["collection.deleted", "collection.document.deleted"]
    id: str
    deleted: bool = True


class PassageHit(_Response):
    """One passage of a search, best first; see `orchestrator.wire.UrlCitation`.

    `score` is the fused one, 0 to 1, `similarity` the cosine, `bm25` the score of its words.
    """

    object: Literal["collection.passage"] = "collection.passage"
    passage_id: str
    document_id: str
    collection: str
    title: str
    url: str
    text: str
    start: int
    end: int
    score: float
    similarity: float
    bm25: float
    license: str = ""
    lang: str = ""
    file: str = ""
    page: int | None = None
    line: int | None = None
    sha256: str = ""
    added: float | None = None


class SearchResults(_Response):
    """The body that answers a search."""

    object: Literal["list"] = "list"
    data: list[PassageHit]
