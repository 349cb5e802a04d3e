"""Text, Markdown and programs: the file's own characters are the document's text."""

from __future__ import annotations

from collections.abc import Iterator

from retrieval.document import TextFormat
from retrieval.original import Original
from retrieval.readers.content import Content, Reader
from retrieval.readers.encoding import decode


def plain_reader(format: TextFormat) -> Reader:
    """Return the reader of files in this format."""

    def read(original: Original) -> Iterator[Content]:
        text = decode(original, original.read())
        title = _first_heading(text) if format is TextFormat.MARKDOWN else ""
        if format.is_code:
            # Names like __init__ or index tell nothing without their folder.
            title = original.name
        yield Content(text, format, title)

    return read


def _first_heading(text: str) -> str:
    for line in text.splitlines():
        if line.startswith("# "):
            return line[2:].strip(" #")
    return ""
