"""JSON Lines: one document a line, read one by one, so that files may have any length."""

from __future__ import annotations

import codecs
import hashlib
import json
from collections.abc import Iterator
from typing import Any

from retrieval.document import checked_metadata
from retrieval.errors import InvalidDocument, UnreadableSource
from retrieval.original import LARGEST_FILE, Original
from retrieval.readers.content import Content

_REQUIRED = ("id", "title", "text")
_OPTIONAL = ("url", "license", "source", "lang")


def read_lines(original: Original) -> Iterator[Content | UnreadableSource]:
    """Yield the documents of a file with an object a line: `id`, `title` and `text`.

    Optional are `url`, `license`, `source`, `lang` and `metadata`; other keys are passed over. The
    hash of a document is that of its line. A line that cannot be read is yielded as an error.
    """
    with original.open() as opened:
        number = 0
        while True:
            number += 1
            try:
                line = opened.readline(LARGEST_FILE + 1)
            except OSError as error:
                raise original.unreadable(f"cannot be read: {error.strerror}") from error
            if not line:
                return
            if len(line) > LARGEST_FILE:
                raise original.unreadable(f"has a line {number} that is too long")
            if number == 1:
                line = line.removeprefix(codecs.BOM_UTF8)
            if line.strip():
                yield _document(f"{original.name}:{number}", line.rstrip(b"\r\n"))


def _document(place: str, line: bytes) -> Content | UnreadableSource:
    try:
        row = _row(line)
        said = row.get("metadata")
        metadata = checked_metadata({} if said is None else _object("metadata", said))
    except InvalidDocument as error:
        return UnreadableSource(f"{place}: {error}")
    fields = {name: row[name] for name in (*_REQUIRED, *_OPTIONAL) if row.get(name) is not None}
    sha256 = hashlib.sha256(line).hexdigest()
    return Content(**fields, metadata=metadata, sha256=sha256, place=place)


def _row(line: bytes) -> dict[str, Any]:
    try:
        row: Any = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise InvalidDocument(f"not UTF-8 (byte {error.start} of the line).") from error
    except (ValueError, RecursionError) as error:
        raise InvalidDocument(f"not a JSON object ({error}).") from error
    row = _object("a line", row)
    for name in _REQUIRED:
        if row.get(name) is None:
            raise InvalidDocument(f"the key {name!r} is missing.")
    for name in (*_REQUIRED, *_OPTIONAL):
        if not isinstance(row.get(name, ""), str | None):
            raise InvalidDocument(f"{name!r} must be a string, not {row[name]!r:.80}.")
    if not row["id"]:
        raise InvalidDocument("the key 'id' is empty.")
    return dict(row)


def _object(name: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidDocument(f"{name}: a JSON object was expected, not {type(value).__name__}.")
    return value
