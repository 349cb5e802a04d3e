"""Documents on their way into a collection: cut one by one, encoded and written together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from retrieval.chunking import Chunk, chunk
from retrieval.collection import CollectionWriter
from retrieval.document import MAX_TITLE, Document
from retrieval.errors import InvalidDocument
from retrieval.origins import Origins
from retrieval.schema import Vector
from retrieval.store import Store

WRITTEN_TOGETHER = 256
"""Passages that are gathered before they are encoded and written in one transaction.

So many of unlike lengths fill the encoder's batches, and take it seconds."""

ENCODED_TOGETHER = 512
"""Passages of one call of the encoder, where a single document has more."""

_MOST_CHARACTERS = 8_000_000
_MOST_STEPS = 1024

Encode = Callable[[Sequence[str]], Vector]


@dataclass(frozen=True, slots=True)
class Origin:
    """The file that a document comes from: a path below the folder `root`, "" for an upload."""

    root: str
    path: str


@dataclass(frozen=True, slots=True)
class _Step:
    passages: int
    write: Callable[[Store, Vector], None] | None
    done: Callable[[], None] | None


class Intake:
    """Takes documents in their order; what was done of them is on disk once `done` was called.

    `encode` maps n texts to unit vectors [n, d]; `encoded` is told how many passages it has done.
    """

    def __init__(
        self,
        writer: CollectionWriter,
        encode: Encode,
        encoded: Callable[[int], None] | None = None,
    ) -> None:
        self._writer, self._encode, self._encoded = writer, encode, encoded
        self._steps: list[_Step] = []
        self._texts: list[str] = []
        self._characters = 0
        self._pending: dict[str, str] = {}
        self._removing = False

    def add(
        self,
        document: Document,
        origin: Origin | None = None,
        done: Callable[[], None] | None = None,
    ) -> int:
        """Take a document, and return how many passages it will have written: 0 if it is unchanged.

        May encode and write what was gathered. Raises `InvalidDocument` where it cannot be cut.
        """
        self.settle()
        digest = document.digest
        if self._stored(document.id) == digest:
            self._add_unchanged(document, origin, done)
            return 0
        if origin is not None:
            # Not after it: what `then` says of its file belongs into the same transaction.
            self._flush_if_full()
        chunks = _cut(document)

        def write(store: Store, vectors: Vector) -> None:
            store.put(document, chunks, vectors, _key(store, origin))

        self._pending[document.id] = digest
        self._texts += [_embedded(document, part) for part in chunks]
        self._append(_Step(len(chunks), write, done), len(document.text))
        if origin is None:
            self._flush_if_full()
        return len(chunks)

    def then(
        self,
        write: Callable[[Store], None] | None = None,
        done: Callable[[], None] | None = None,
        *,
        removes: bool = False,
    ) -> None:
        """Do something in the transaction of the documents before, and call `done` after it.

        `removes` says that it may remove documents that are stored.
        """
        self._removing |= removes
        self._append(_Step(0, write and _alone(write), done), 0)
        self._flush_if_full()

    def settle(self) -> None:
        """Write what was gathered if it removes documents: what is stored is then what counts."""
        if self._removing:
            self.flush()

    def flush(self) -> None:
        """Encode and write what was gathered."""
        vectors = self._vectors()
        steps, self._steps, self._texts = self._steps, [], []
        self._pending, self._characters, self._removing = {}, 0, False
        if any(step.write is not None for step in steps):
            with self._writer.writing() as store:
                for step in steps:
                    if step.write is not None:
                        step.write(store, vectors[: step.passages])
                        vectors = vectors[step.passages :]
        for step in steps:
            if step.done is not None:
                step.done()

    def _add_unchanged(
        self, document: Document, origin: Origin | None, done: Callable[[], None] | None
    ) -> None:
        # Without a file nothing is known that is not stored already.
        if origin is None:
            self._append(_Step(0, None, done), 0)
            self._flush_if_full()
        else:
            stamp = _alone(lambda store: store.stamp(document, _key(store, origin)))
            self._flush_if_full()
            self._append(_Step(0, stamp, done), len(document.text))

    def _stored(self, document_id: str) -> str | None:
        if document_id in self._pending:
            return self._pending[document_id]
        with self._writer.reading() as store:
            return None if store is None else store.digest(document_id)

    def _append(self, step: _Step, characters: int) -> None:
        self._steps.append(step)
        self._characters += characters

    def _flush_if_full(self) -> None:
        if (
            len(self._texts) >= WRITTEN_TOGETHER
            or len(self._steps) >= _MOST_STEPS
            or self._characters >= _MOST_CHARACTERS
        ):
            self.flush()

    def _vectors(self) -> Vector:
        parts = []
        for at in range(0, len(self._texts), ENCODED_TOGETHER):
            texts = self._texts[at : at + ENCODED_TOGETHER]
            parts.append(self._encode(texts))
            if self._encoded is not None:
                self._encoded(len(texts))
        return np.concatenate(parts) if parts else np.empty((0, 0), dtype=np.float32)


def _alone(write: Callable[[Store], None]) -> Callable[[Store, Vector], None]:
    return lambda store, _vectors: write(store)


def _key(store: Store, origin: Origin | None) -> int | None:
    if origin is None:
        return None
    return Origins(store.connection).open(origin.root, origin.path)


def _cut(document: Document) -> list[Chunk]:
    try:
        return chunk(document.text, document.format, pages=document.pages)
    except Exception as error:
        # Whatever a grammar does with a broken program, the files behind it are added.
        reason = f"{type(error).__name__}: {str(error)[:200]}"
        message = f"Document {document.id!r} cannot be cut into passages ({reason})."
        raise InvalidDocument(message) from error


def _embedded(document: Document, chunk: Chunk) -> str:
    context = [part for part in (document.title[:MAX_TITLE], chunk.heading) if part]
    return "\n".join([*context, chunk.text])
