"""The user's files as documents, one by one, without a collection."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from retrieval.document import Document
from retrieval.errors import EmptySource, InvalidDocument, UnreadableSource
from retrieval.folder import originals
from retrieval.labels import Labels
from retrieval.original import Original
from retrieval.readers.registry import reader_for


def read_documents(path: Path, base_url: str = "") -> Iterator[Document]:
    """Yield the documents of a file, or of all readable files of a folder, in order of their path.

    A file is one document: the id is its path below `path`, the title its own or the file's name,
    and the url `base_url` followed by the id. A `.jsonl` file has one object a line. Empty files
    are passed over. Raises `UnreadableSource` for the first file that cannot be read, naming the
    line at fault; `Index.ingest` goes on behind faults.
    """
    labels = Labels(base_url=base_url)
    for original in originals(path):
        if isinstance(original, UnreadableSource):
            raise original
        for found in read_file(original, labels, original.sha256()):
            if isinstance(found, EmptySource):
                continue
            if isinstance(found, UnreadableSource):
                raise found
            yield found


def read_file(
    original: Original, labels: Labels, sha256: str
) -> Iterator[Document | UnreadableSource]:
    """Yield the documents of the file with this hash.

    What is wrong with it, or with one of them, is yielded in its place.
    """
    try:
        reader = reader_for(original)
        for content in reader(original):
            if isinstance(content, UnreadableSource):
                yield content
                continue
            place = content.place or repr(original.name)
            if not content.text.strip() and not content.place:
                yield EmptySource(f"{place} is empty.")
                continue
            try:
                yield labels.document(original, content, sha256)
            except InvalidDocument as error:
                yield UnreadableSource(f"{place}: {error}")
    except UnreadableSource as error:
        yield error
    except Exception as error:
        # Whatever a library does with a broken file, the files behind it are read.
        yield original.unreadable(f"cannot be read ({type(error).__name__}: {str(error)[:200]})")
