"""Collections in the SDK: `client.collections` of both clients.

    client.collections.add("handbook", "./handbook", license="CC-BY-4.0")
    for hit in client.collections.search("handbook", "sick leave"):
        print(hit.title, hit.page, hit.text)

As in `orchestrator.client` the twins only send; what they have in common stands below them.
"""

import builtins
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Unpack
from urllib.parse import quote

import httpx

from orchestrator.calls import Call, checked, parsed
from orchestrator.client_filling import Documents, Filling, Labels, Paths
from orchestrator.collection_wire import (
    CollectionCard,
    CollectionList,
    DocumentCard,
    DocumentList,
    IngestionReport,
    PassageHit,
    SearchRequest,
    SearchResults,
)
from orchestrator.errors import PayloadTooLarge

_PAGE = 1000


class Collections:
    """The collections of a service that a `Client` may read."""

    def __init__(self, send: Callable[[Call], httpx.Response]) -> None:
        self._send = send

    def list(self) -> builtins.list[CollectionCard]:
        """List them."""
        return parsed(CollectionList, self._send(Call("GET", _path()))).data

    def get(self, name: str) -> CollectionCard:
        """Return the figures of one."""
        return parsed(CollectionCard, self._send(Call("GET", _path(name))))

    def add(
        self,
        name: str,
        files: Paths = (),
        *,
        documents: Documents = (),
        **labels: Unpack[Labels],
    ) -> IngestionReport:
        """Add files, folders of them, or documents; makes the collection if need be.

        Files that did not change are skipped, and so are those of a folder that are of a kind that
        is not read. What is wrong with a file is in its report; look at `counts`. Files go out in
        several requests where they are many.
        """
        filling = Filling(name, f"{_path(name)}/documents", files, documents, labels)
        for call in filling.calls():
            try:
                filling.reported(parsed(IngestionReport, self._send(call)))
            except PayloadTooLarge as error:
                filling.refused(error)
        return filling.report()

    def documents(self, name: str) -> builtins.list[DocumentCard]:
        """List the documents of one, without their texts."""
        cards: builtins.list[DocumentCard] = []
        while True:
            page = parsed(DocumentList, self._send(_page_call(name, cards)))
            cards += page.data
            if not page.has_more or not page.data:
                return cards

    def document(self, name: str, document_id: str) -> DocumentCard:
        """Return one document with its text."""
        return parsed(DocumentCard, self._send(Call("GET", _path(name, document_id))))

    def delete(self, name: str, document_id: str | None = None) -> None:
        """Remove a document, or the whole collection without one."""
        self._send(Call("DELETE", _path(name, document_id)))

    def search(
        self, name: str, query: str, top_k: int = 5, filter: Mapping[str, object] | None = None
    ) -> builtins.list[PassageHit]:
        """Return the passages that fit a query best.

        `filter` limits the search to documents of which it holds, such as `{"lang": "de"}`.
        """
        return parsed(SearchResults, self._send(_search_call(name, query, top_k, filter))).data


class AsyncCollections:
    """See `Collections`: the same methods, awaited."""

    def __init__(self, send: Callable[[Call], Awaitable[httpx.Response]]) -> None:
        self._send = send

    async def list(self) -> builtins.list[CollectionCard]:
        """See `Collections.list`."""
        return parsed(CollectionList, await self._send(Call("GET", _path()))).data

    async def get(self, name: str) -> CollectionCard:
        """See `Collections.get`."""
        return parsed(CollectionCard, await self._send(Call("GET", _path(name))))

    async def add(
        self,
        name: str,
        files: Paths = (),
        *,
        documents: Documents = (),
        **labels: Unpack[Labels],
    ) -> IngestionReport:
        """See `Collections.add`."""
        filling = Filling(name, f"{_path(name)}/documents", files, documents, labels)
        for call in filling.calls():
            try:
                filling.reported(parsed(IngestionReport, await self._send(call)))
            except PayloadTooLarge as error:
                filling.refused(error)
        return filling.report()

    async def documents(self, name: str) -> builtins.list[DocumentCard]:
        """See `Collections.documents`."""
        cards: builtins.list[DocumentCard] = []
        while True:
            page = parsed(DocumentList, await self._send(_page_call(name, cards)))
            cards += page.data
            if not page.has_more or not page.data:
                return cards

    async def document(self, name: str, document_id: str) -> DocumentCard:
        """See `Collections.document`."""
        return parsed(DocumentCard, await self._send(Call("GET", _path(name, document_id))))

    async def delete(self, name: str, document_id: str | None = None) -> None:
        """See `Collections.delete`."""
        await self._send(Call("DELETE", _path(name, document_id)))

    async def search(
        self, name: str, query: str, top_k: int = 5, filter: Mapping[str, object] | None = None
    ) -> builtins.list[PassageHit]:
        """See `Collections.search`."""
        call = _search_call(name, query, top_k, filter)
        return parsed(SearchResults, await self._send(call)).data


def _path(name: str | None = None, document_id: str | None = None) -> str:
    path = "v1/collections"
    if name is not None:
        path += f"/{quote(name, safe='')}"
    if document_id is not None:
        path += f"/documents/{quote(document_id, safe='')}"
    return path


def _page_call(name: str, cards: Sequence[DocumentCard]) -> Call:
    after = {"after": cards[-1].id} if cards else {}
    return Call("GET", f"{_path(name)}/documents", params={"limit": str(_PAGE), **after})


def _search_call(name: str, query: str, top_k: int, filter: Mapping[str, object] | None) -> Call:
    body = checked(SearchRequest, {"query": query, "top_k": top_k, "filter": filter})
    return Call("POST", f"{_path(name)}/search", body)
