"""The collections over HTTP: list, fill, search and remove them, within the caller's rights."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import asdict
from http import HTTPStatus
from typing import Annotated

from fastapi import FastAPI, Query, Request
from opentelemetry.trace import Span
from starlette.requests import ClientDisconnect

from experts.generation import ExpertError
from orchestrator.collection_wire import (
    CollectionCard,
    CollectionList,
    Deletion,
    DocumentCard,
    DocumentList,
    FileReport,
    IngestionReport,
    PassageHit,
    SearchRequest,
    SearchResults,
)
from orchestrator.conditions import asked_condition
from orchestrator.config import LimitsConfig
from orchestrator.errands import (
    DescribeCollection,
    Errand,
    FetchDocument,
    Found,
    Ingest,
    ListCollections,
    ListDocuments,
    Remove,
    SearchPassages,
)
from orchestrator.errors import (
    ExpertUnavailable,
    InvalidRequest,
    NotFound,
    Overloaded,
    PermissionDenied,
)
from orchestrator.identity import Principal
from orchestrator.ports import RetrieverPort
from orchestrator.presence import CallerGone
from orchestrator.retrieval_fault import told
from orchestrator.tally import leave_to_admission
from orchestrator.telemetry import Carrier, carrier, incoming
from orchestrator.upload import read_upload, upload_schema
from retrieval.collection import CollectionInfo
from retrieval.errors import MissingCollection, RetrievalError
from retrieval.ingestion import FileResult

_ROOT = "/v1/collections"
_ONE = f"{_ROOT}/{{name}}"
_DOCUMENTS = f"{_ONE}/documents"
_DOCUMENT = f"{_DOCUMENTS}/{{document_id:path}}"
_SEARCH = f"{_ONE}/search"
_UPLOADS_AT_ONCE = 2

Enter = Callable[..., AbstractAsyncContextManager[Span]]
_Limit = Annotated[int, Query(ge=1, le=1000)]


class CollectionsDesk:
    """The endpoints below `/v1/collections`; a caller sees the collections that it may read.

    `principal` says who asks, `enter` opens the root span of a request and admits it.
    """

    def __init__(
        self,
        limits: LimitsConfig,
        retriever: RetrieverPort,
        principal: Callable[[Request], Principal],
        enter: Enter,
    ) -> None:
        self._limits, self._retriever = limits, retriever
        self._principal, self._enter = principal, enter
        # A whole upload lies in memory while it is handed on.
        self._uploads = asyncio.Semaphore(_UPLOADS_AT_ONCE)

    def install(self, app: FastAPI) -> None:
        """Add the endpoints to an application."""
        add = app.add_api_route
        add(_ROOT, self.list, methods=["GET"], response_model=CollectionList)
        add(_ONE, self.describe, methods=["GET"], response_model=CollectionCard)
        add(_ONE, self.delete, methods=["DELETE"], response_model=Deletion)
        add(_DOCUMENTS, self.documents, methods=["GET"], response_model=DocumentList)
        add(
            _DOCUMENTS,
            self.add,
            methods=["POST"],
            response_model=IngestionReport,
            openapi_extra=upload_schema(),
        )
        add(_DOCUMENT, self.document, methods=["GET"], response_model=DocumentCard)
        add(_DOCUMENT, self.delete_document, methods=["DELETE"], response_model=Deletion)
        add(_SEARCH, self.search, methods=["POST"], response_model=SearchResults)

    async def list(self, http: Request) -> CollectionList:
        """The collections that the caller may read."""
        principal = self._principal(http)
        found = await self._tend(ListCollections(principal.collections), http)
        return CollectionList(data=[_card(info, principal) for info in found])

    async def describe(self, name: str, http: Request) -> CollectionCard:
        """One of them."""
        principal = self._readable(name, http)
        return _card(await self._tend(DescribeCollection(name), http), principal)

    async def delete(self, name: str, http: Request) -> Deletion:
        """Remove a collection with all its documents."""
        self._writable(name, http)
        await self._tend(Remove(name), http)
        return Deletion(object="collection.deleted", id=name)

    async def documents(
        self, name: str, http: Request, limit: _Limit = 100, after: str = ""
    ) -> DocumentList:
        """Its documents by their ids, those behind the id `after`."""
        self._readable(name, http)
        found = await self._tend(ListDocuments(name, limit + 1, after), http)
        cards = [
            DocumentCard(collection=name, **asdict(info) | {"added": info.added or None})
            for info in found[:limit]
        ]
        return DocumentList(data=cards, has_more=len(found) > limit)

    async def document(self, name: str, document_id: str, http: Request) -> DocumentCard:
        """One document with its text, which the offsets of passages and citations point into."""
        self._readable(name, http)
        found = await self._tend(FetchDocument(name, document_id), http)
        fields = asdict(found) | {"pages": len(found.pages), "added": found.added or None}
        return DocumentCard(collection=name, **fields)

    async def delete_document(self, name: str, document_id: str, http: Request) -> Deletion:
        """Remove a document."""
        self._writable(name, http)
        await self._tend(Remove(name, document_id), http)
        return Deletion(object="collection.document.deleted", id=document_id)

    async def add(self, name: str, http: Request) -> IngestionReport:
        """Add files (a form) or documents (JSON); what the answer calls added is on disk."""
        principal = self._writable(name, http)
        if self._uploads.locked():
            # Waiting here they would take the places of chats, for as long as files are read.
            raise Overloaded(f"{_UPLOADS_AT_ONCE} uploads are being taken in.", retry_after=5.0)
        leave_to_admission(http.scope)
        asked = {"collegium__tenant": principal.tenant, "collegium__collections": [name]}
        async with self._uploads, self._enter(_DOCUMENTS, incoming(http.headers), **asked) as span:
            errand = await self._arrived(http, name)
            results = await self._tend(errand, http, carrier(span))
            span.set_attribute("collegium.passages_written", sum(r.passages for r in results))
        return _report(name, results)

    async def search(self, name: str, body: SearchRequest, http: Request) -> SearchResults:
        """The passages that fit a query best, by words and by meaning."""
        principal = self._readable(name, http)
        condition = asked_condition(body.filter, "filter")
        leave_to_admission(http.scope)
        asked = {"collegium__tenant": principal.tenant, "collegium__collections": [name]}
        async with self._enter(_SEARCH, incoming(http.headers), **asked) as span:
            errand = SearchPassages(name, body.query, body.top_k, condition)
            found = await self._tend(errand, http, carrier(span))
        return SearchResults(data=[PassageHit(**asdict(passage)) for passage in found])

    async def _arrived(self, http: Request, name: str) -> Ingest:
        """The upload, once all of it is here: it holds a place, so it is not waited for long."""
        longest = self._limits.upload_seconds
        try:
            async with asyncio.timeout(longest):
                return await read_upload(http, name, self._limits.max_upload_files)
        except TimeoutError as error:
            late = InvalidRequest(
                f"The body did not arrive within {longest:g} s: send fewer files at once.",
                code="upload_too_slow",
            )
            late.status = HTTPStatus.REQUEST_TIMEOUT
            raise late from error
        except ClientDisconnect as error:
            raise CallerGone from error

    def _readable(self, name: str, http: Request) -> Principal:
        principal = self._principal(http)
        if not principal.may_read(name):
            raise _missing(name)
        return principal

    def _writable(self, name: str, http: Request) -> Principal:
        principal = self._readable(name, http)
        if not principal.may_write(name):
            raise PermissionDenied(
                f"The collection {name!r} is read-only to you; without a key "
                "`server.keyless_writes` decides."
            )
        return principal

    async def _tend(self, errand: Errand[Found], http: Request, trace: Carrier = ()) -> Found:
        with _for_caller(str(http.path_params.get("name", ""))):
            return await self._retriever.tend(errand, trace or incoming(http.headers))


def _card(info: CollectionInfo, principal: Principal) -> CollectionCard:
    return CollectionCard(
        id=info.name,
        documents=info.documents,
        passages=info.passages,
        dimensions=info.dimensions,
        bytes=info.bytes,
        writable=principal.may_write(info.name),
    )


def _report(name: str, results: Sequence[FileResult]) -> IngestionReport:
    return IngestionReport(
        collection=name,
        counts=dict(sorted(Counter(str(result.outcome) for result in results).items())),
        documents=sum(result.documents for result in results),
        passages=sum(result.passages for result in results),
        files=[FileReport(**asdict(r) | {"errors": list(r.errors)}) for r in results],
    )


def _missing(name: str) -> NotFound:
    # The same words whether it does not exist or may not be seen.
    return NotFound(f"There is no collection {name!r}.", param="name", code="collection_not_found")


@contextmanager
def _for_caller(name: str) -> Iterator[None]:
    """Turn what the Retriever raises into what the caller should see."""
    try:
        yield
    except MissingCollection as error:
        raise _missing(name) from error
    except RetrievalError as error:
        raise told(error) from error
    except ExpertError as error:
        raise ExpertUnavailable(str(error), retry_after=2.0) from error
