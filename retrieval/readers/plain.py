"""Text, Markdown and programs: the file's own characters are the document's text."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from retrieval.document import TextFormat
from retrieval.original import Original
from retrieval.outline import top_headings
from retrieval.readers.content import Content, Reader
from retrieval.readers.encoding import decode


def plain_reader(format: TextFormat) -> Reader:
    """Return the reader of files in this format."""

    def read(original: Original) -> Iterator[Content]:
        text = decode(original, original.read())
        title = _only_heading(text) if format is TextFormat.MARKDOWN else ""
        if format.is_code:
            # Names like __init__ or index tell nothing without their folder.
            title = original.name
        yield Content(text, format, title)

    return read


def _only_heading(text: str) -> str:
    # Of several top headings none is the file's; each stands over its own passages.
    found = list(islice(top_headings(text), 2))
    return found[0] if len(found) == 1 else ""
