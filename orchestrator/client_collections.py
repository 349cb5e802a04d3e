"""Collections in the SDK: `client.collections` of both clients.

    client.collections.add("handbook", "./handbook", license="CC-BY-4.0")
    for hit in client.collections.search("handbook", "sick leave"):
        print(hit.title, hit.page, hit.text)

As in `orchestrator.client` the twins only send; what they have in common stands below them.
"""

import builtins
import json
import mimetypes
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypedDict, Unpack
from urllib.parse import quote

import httpx

from orchestrator.calls import Call, checked, parsed
from orchestrator.collection_wire import (
    CollectionCard,
    CollectionList,
    DocumentCard,
    DocumentInput,
    DocumentList,
    DocumentsRequest,
    FileReport,
    IngestionReport,
    PassageHit,
    SearchRequest,
    SearchResults,
)
from orchestrator.errors import InvalidRequest

BATCH_BYTES, BATCH_FILES = 16_777_216, 64
"""Of files that go out in one request, unless a single one is larger."""

_PAGE = 1000

Paths = str | Path | Sequence[str | Path]
Documents = Sequence[DocumentInput | Mapping[str, object]]


class Labels(TypedDict, total=False):
    """Said of all files that do not say it themselves; `base_url` goes before their paths."""

    license: str
    lang: str
    metadata: Mapping[str, str | int | float | bool]
    base_url: str


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

        Files that did not change are skipped. What is wrong with a file is in its report; look at
        `counts`. Files go out in several requests where they are many.
        """
        calls = _uploads(name, files, documents, labels)
        return _joined(name, [parsed(IngestionReport, self._send(call)) for call in calls])

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

    def search(self, name: str, query: str, top_k: int = 5) -> builtins.list[PassageHit]:
        """Return the passages that fit a query best."""
        return parsed(SearchResults, self._send(_search_call(name, query, top_k))).data


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
        calls = _uploads(name, files, documents, labels)
        return _joined(name, [parsed(IngestionReport, await self._send(call)) for call in calls])

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

    async def search(self, name: str, query: str, top_k: int = 5) -> builtins.list[PassageHit]:
        """See `Collections.search`."""
        return parsed(SearchResults, await self._send(_search_call(name, query, top_k))).data


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


def _search_call(name: str, query: str, top_k: int) -> Call:
    body = checked(SearchRequest, {"query": query, "top_k": top_k})
    return Call("POST", f"{_path(name)}/search", body)


def _uploads(name: str, files: Paths, documents: Documents, labels: Labels) -> Iterator[Call]:
    path = f"{_path(name)}/documents"
    if documents:
        yield Call("POST", path, checked(DocumentsRequest, {"documents": list(documents)}))
    fields = {key: str(value) for key, value in labels.items() if key != "metadata"}
    if "metadata" in labels:
        fields["metadata"] = json.dumps(dict(labels["metadata"]))
    for batch in _batches(files):
        parts = tuple((file, where.read_bytes(), _media_type(file)) for file, where in batch)
        yield Call("POST", path, files=parts, fields=fields)


def _batches(files: Paths) -> Iterator[list[tuple[str, Path]]]:
    batch: list[tuple[str, Path]] = []
    size = 0
    for name, path in _named(files):
        length = path.stat().st_size
        if batch and (size + length > BATCH_BYTES or len(batch) == BATCH_FILES):
            yield batch
            batch, size = [], 0
        batch.append((name, path))
        size += length
    if batch:
        yield batch


def _named(files: Paths) -> Iterator[tuple[str, Path]]:
    for path in [files] if isinstance(files, str | Path) else files:
        root = Path(path)
        if root.is_dir():
            found = sorted(file for file in root.rglob("*") if _is_seen(file, root))
            yield from ((file.relative_to(root).as_posix(), file) for file in found)
        elif root.is_file():
            yield root.name, root
        else:
            raise InvalidRequest(f"There is no file or folder {str(path)!r}.", param="files")


def _is_seen(file: Path, root: Path) -> bool:
    hidden = any(part.startswith(".") for part in file.relative_to(root).parts)
    return not hidden and not file.is_symlink() and file.is_file()


def _media_type(name: str) -> str:
    return mimetypes.guess_type(name)[0] or "application/octet-stream"


def _joined(name: str, reports: Sequence[IngestionReport]) -> IngestionReport:
    files: list[FileReport] = [file for report in reports for file in report.files]
    counts: Counter[str] = Counter()
    for report in reports:
        counts.update(report.counts)
    return IngestionReport(
        collection=name,
        counts=dict(counts),
        documents=sum(report.documents for report in reports),
        passages=sum(report.passages for report in reports),
        files=files,
    )
