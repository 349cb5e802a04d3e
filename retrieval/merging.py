"""Passages without repeats: what several searches or chunks hold twice is one passage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from retrieval.passage import Passage


def merged(passages: Sequence[Passage]) -> list[Passage]:
    """Return the passages without repeats, best first as they came.

    Spans of one document (the same hash, or the same id where there is none) that overlap become
    one passage in the better one's place, with its id and scores.
    """
    kept: list[Passage] = []
    for passage in passages:
        place = _overlapping(kept, passage)
        if place is None:
            kept.append(passage)
        else:
            # What they make together may reach a third one.
            longer = _joined(kept[place], passage)
            kept = merged([*kept[:place], longer, *kept[place + 1 :]])
    return kept


def _overlapping(kept: Sequence[Passage], passage: Passage) -> int | None:
    for place, other in enumerate(kept):
        if _document(other) == _document(passage) and _agree(other, passage):
            return place
    return None


def _document(passage: Passage) -> tuple[str, ...]:
    # Two collections may hold the same file; two documents of one JSON Lines file share its hash.
    if passage.sha256:
        return passage.sha256, passage.document_id
    return passage.collection, passage.document_id


def _agree(one: Passage, other: Passage) -> bool:
    start, end = max(one.start, other.start), min(one.end, other.end)
    if start >= end:
        return False
    return (
        one.text[start - one.start : end - one.start]
        == other.text[start - other.start : end - other.start]
    )


def _joined(better: Passage, other: Passage) -> Passage:
    first, second = sorted((better, other), key=lambda passage: passage.start)
    if second.end <= first.end:
        text, end = first.text, first.end
    else:
        text, end = first.text + second.text[first.end - second.start :], second.end
    return replace(better, text=text, start=first.start, end=end, page=first.page, line=first.line)
