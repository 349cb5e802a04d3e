"""The user's files as documents: text, Markdown and JSON Lines, one by one or by the folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from retrieval.document import Document, TextFormat
from retrieval.errors import InvalidDocument, UnreadableSource

_FORMATS = {
    ".txt": TextFormat.TEXT,
    ".text": TextFormat.TEXT,
    ".md": TextFormat.MARKDOWN,
    ".markdown": TextFormat.MARKDOWN,
}
_LINES = ".jsonl"
_FIELDS = ("id", "title", "text", "url", "license", "source")


def read_documents(path: Path, base_url: str = "") -> Iterator[Document]:
    """Yield the documents of a file, or of all readable files of a folder, in order of their path.

    `.txt` and `.md` files are one document each: the id is the path below `path`, the title the
    first Markdown heading or the file's name, and the url `base_url` followed by the id. A
    `.jsonl` file has one object a line with `id`, `title` and `text`, optionally `url`,
    `license` and `source`. In a folder other files, hidden ones and links are passed over.
    Raises `UnreadableSource` naming file and line.
    """
    if path.is_dir():
        files = [file for file in sorted(path.rglob("*")) if _belongs(file, path)]
        if not files:
            raise UnreadableSource(f"Folder {str(path)!r} holds no {_readable()} files.")
        for file in files:
            yield from _read_file(file, file.relative_to(path).as_posix(), base_url)
    elif not path.is_file():
        raise UnreadableSource(f"There is no file or folder {str(path)!r}.")
    elif path.suffix.lower() not in (*_FORMATS, _LINES):
        raise UnreadableSource(f"{str(path)!r} is not one of {_readable()}.")
    else:
        yield from _read_file(path, path.name, base_url)


def _readable() -> str:
    return ", ".join((*_FORMATS, _LINES))


def _belongs(file: Path, root: Path) -> bool:
    hidden = any(part.startswith(".") for part in file.relative_to(root).parts)
    readable = file.suffix.lower() in (*_FORMATS, _LINES)
    # A link could lead out of the folder that was named.
    return (
        readable
        and not hidden
        and file.is_file()
        and file.resolve() == root.resolve() / (file.relative_to(root))
    )


def _read_file(file: Path, name: str, base_url: str) -> Iterator[Document]:
    text = _read_text(file)
    if file.suffix.lower() == _LINES:
        yield from _read_lines(file, text)
    elif text.strip():
        form = _FORMATS[file.suffix.lower()]
        title = _first_heading(text) if form is TextFormat.MARKDOWN else ""
        url = base_url + quote(name) if base_url else ""
        yield _checked(
            str(file),
            id=name,
            title=title or file.stem,
            text=text,
            url=url,
            source=name,
            format=form,
        )


def _read_text(file: Path) -> str:
    try:
        # newline="" keeps the offsets those of the file.
        with file.open(encoding="utf-8-sig", newline="") as opened:
            return opened.read()
    except UnicodeDecodeError as error:
        raise UnreadableSource(
            f"{str(file)!r} is not UTF-8 (byte {error.start}); convert it first, "
            "for example with iconv."
        ) from error
    except OSError as error:
        raise UnreadableSource(f"{str(file)!r} cannot be read: {error.strerror}.") from error


def _first_heading(text: str) -> str:
    for line in text.splitlines():
        if line.startswith("# "):
            return line[2:].strip(" #")
    return ""


def _read_lines(file: Path, text: str) -> Iterator[Document]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield _document(f"{file}:{number}", line)


def _document(place: str, line: str) -> Document:
    try:
        row: Any = json.loads(line)
    except json.JSONDecodeError as error:
        raise UnreadableSource(f"{place}: not a JSON object ({error}).") from error
    if not isinstance(row, dict):
        raise UnreadableSource(f"{place}: a JSON object was expected, not {type(row).__name__}.")
    for name in ("id", "title", "text"):
        if name not in row:
            raise UnreadableSource(f"{place}: the key {name!r} is missing.")
    fields = {name: row[name] for name in _FIELDS if row.get(name) is not None}
    for name, value in fields.items():
        if not isinstance(value, str):
            raise UnreadableSource(f"{place}: {name!r} must be a string, not {value!r}.")
    return _checked(place, **fields)


def _checked(place: str, **fields: Any) -> Document:  # noqa: ANN401
    try:
        return Document(**fields)
    except InvalidDocument as error:
        raise UnreadableSource(f"{place}: {error}") from error
