"""Provenance: what the answer to a logged decision stood on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LoggedSource:
    """A passage that the expert saw: `start` and `end` are offsets in its document's text.

    `sha256` is the hash of the document's original bytes, "" where none was kept.
    """

    collection: str
    passage_id: str
    sha256: str
    start: int
    end: int


@dataclass(frozen=True)
class Provenance:
    """How an answer stood to its sources, in the words of `x_routing.grounding`, and which.

    Of `sentences` that could be checked, `supported` were found in them. `cache` says how a kept
    answer was found again, in the words of `x_routing.cache`: its sources are those it cites.
    """

    grounding: str
    sentences: int = 0
    supported: int = 0
    sources: tuple[LoggedSource, ...] = ()
    cache: str = ""
