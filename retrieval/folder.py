"""The files of a folder that can be read, in order of their path."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from retrieval.errors import UnreadableSource
from retrieval.original import Original
from retrieval.readers.registry import READABLE, is_readable


def originals(
    path: Path, include: Sequence[str] = (), exclude: Sequence[str] = ()
) -> Iterator[Original | UnreadableSource]:
    """Yield a file, or the files of a folder and those below it, sorted by their paths.

    Hidden files and links are passed over, the latter since they may lead out of the folder, and
    so are files of a kind that is not read. `include` and `exclude` are patterns like `*.md` or
    `drafts/*`, in which `*` stands for slashes, too; with `include` whatever it matches is taken. A
    file with a name that cannot be kept, and a folder that cannot be listed, are yielded as errors.
    Raises `UnreadableSource` where there is nothing at `path`, or nothing to read.
    """
    if os.path.isfile(path):
        yield Original.at(path, path.parent)
        return
    if not os.path.isdir(path):
        raise UnreadableSource(f"There is no file or folder {str(path)!r}.")
    found = False
    for file in _files(path):
        if isinstance(file, UnreadableSource):
            found = True
            yield file
            continue
        name = file.relative_to(path).as_posix()
        if _is_wanted(name, include, exclude):
            found = True
            try:
                yield Original.at(file, path)
            except UnreadableSource as error:
                yield error
    if not found:
        what = f"that match {', '.join(include)}" if include else f"of {READABLE}"
        raise UnreadableSource(f"Folder {str(path)!r} holds no files {what}.")


def _files(folder: Path) -> Iterator[Path | UnreadableSource]:
    try:
        # By parts: "a/z.md" comes before "a b.md", as in a listing of folders.
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        yield UnreadableSource(f"Folder {str(folder)!r} cannot be read: {error.strerror}.")
        return
    for entry in entries:
        if entry.name.startswith(".") or entry.is_symlink():
            continue
        if entry.is_dir():
            yield from _files(Path(entry.path))
        elif entry.is_file():
            yield Path(entry.path)


def _is_wanted(name: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    if any(_matches(name, pattern) for pattern in exclude):
        return False
    if include:
        return any(_matches(name, pattern) for pattern in include)
    return is_readable(name)


def _matches(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or fnmatchcase(name.rpartition("/")[2], pattern)
