"""Who owns an id: it belongs to the file that brought it, until that file gives it up."""

from __future__ import annotations

from pathlib import Path

from retrieval.collection import CollectionWriter
from retrieval.intake import Origin
from retrieval.origins import Origins

_FOLDERS = "Add their common parent folder, or use another collection."
_LINES = "Give one of the two another id."
_UPLOADS = "Remove that document first, or use another collection."


class Ownership:
    """The ids of an ingestion and of the collection that it fills."""

    def __init__(self, writer: CollectionWriter) -> None:
        self._writer = writer
        self._claimed: dict[str, Origin | None] = {}

    def claim(self, document_id: str, origin: Origin) -> str:
        """Give an id to a file; returns why it cannot have it, "" where it can."""
        if document_id in self._claimed:
            claimed = self._claimed[document_id]
            if claimed == origin:
                return _refusal(document_id, origin, "another document of the file")
            if claimed is None:
                return _refusal(document_id, origin, "a document that came without a file")
            return _conflict(document_id, origin, claimed)
        owner = self._stored(document_id)
        if owner is not None and _keeps(owner, origin):
            return _conflict(document_id, origin, owner)
        self._claimed[document_id] = origin
        return ""

    def claim_alone(self, document_id: str) -> str:
        """Give an id to a document that came without a file; returns why it cannot have it."""
        if document_id in self._claimed:
            return f"The id {document_id!r} was given twice."
        owner = self._stored(document_id)
        if owner is not None and _stands(owner):
            return f"The id {document_id!r} is already that of {owner.path!r}. {_UPLOADS}"
        self._claimed[document_id] = None
        return ""

    def _stored(self, document_id: str) -> Origin | None:
        with self._writer.reading() as store:
            held = None if store is None else Origins(store.connection).owner(document_id)
        return None if held is None else Origin(*held)


def _keeps(owner: Origin, asking: Origin) -> bool:
    """Whether the file still holds what it brought; one that was moved hands its ids on."""
    if owner == asking:
        return False
    # What was uploaded may be replaced under its own name.
    return _stands(owner) and (bool(owner.root) or owner.path != asking.path)


def _stands(owner: Origin) -> bool:
    # Nobody sees whether what was uploaded still exists.
    return not owner.root or Path(owner.root, owner.path).is_file()


def _conflict(document_id: str, asking: Origin, owner: Origin) -> str:
    # Who uploads is told nothing of this machine's folders.
    if owner.root and asking.root:
        holder = f"{owner.path!r} in {owner.root!r}"
        hint = _LINES if owner.root == asking.root else _FOLDERS
    else:
        holder, hint = repr(owner.path), _UPLOADS
    return f"{_refusal(document_id, asking, holder)} {hint}"


def _refusal(document_id: str, asking: Origin, owner: str) -> str:
    return f"{asking.path!r}: the id {document_id!r} is already that of {owner}."
