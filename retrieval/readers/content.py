"""What a reader finds in a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from retrieval.document import Scalar, TextFormat
from retrieval.errors import UnreadableSource
from retrieval.original import Original


@dataclass(frozen=True, slots=True)
class Content:
    """One text of a file, with what the file says about it; see `retrieval.document.Document`.

    `id`, `url`, `license`, `source`, `metadata` and `sha256` are given where a file holds several
    documents, of which each speaks for itself; `place` is then where this one stands, for messages.
    """

    text: str
    format: TextFormat = TextFormat.TEXT
    title: str = ""
    lang: str = ""
    pages: tuple[tuple[int, int], ...] = ()
    id: str = ""
    url: str = ""
    license: str = ""
    source: str = ""
    metadata: Mapping[str, Scalar] = field(default_factory=dict)
    sha256: str = ""
    place: str = ""


Reader = Callable[[Original], Iterator[Content | UnreadableSource]]
"""Reads a file. Raises `UnreadableSource` where nothing (more) of it can be read; a fault of one
document among several is yielded in its place."""
