"""Filling a collection from the SDK: which files go out in which requests, and what became of them.

Requests are small, so that what is read and encoded for one takes seconds, and others get at the
service in between.
"""

import json
import mimetypes
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TypedDict

from orchestrator.calls import Call, checked
from orchestrator.collection_wire import (
    DocumentInput,
    DocumentsRequest,
    FileReport,
    IngestionReport,
)
from orchestrator.errors import InvalidRequest, PayloadTooLarge

BATCH_BYTES, BATCH_FILES = 524_288, 64
"""Of files that go out in one request, unless a single one is larger."""

SUFFIXES = frozenset(
    (
        ".txt .text .rst .adoc .org .tex .log .srt .vtt .md .markdown .mdx .qmd .html .htm .xhtml "
        ".jsonl .ndjson .pdf .docx .bash .bat .cfg .clj .cmake .conf .css .csv .dart .elm .ex .exs "
        ".fish .gradle .graphql .groovy .hs .ini .jl .json .kt .kts .less .lua .m .mk .ml .nix .pl "
        ".pm .properties .proto .ps1 .r .sass .scala .scss .sh .sql .swift .tf .toml .tsv .vue "
        ".xml .yaml .yml .zig .zsh .c .h .cc .cpp .cxx .hh .hpp .hxx .cu .cuh .cs .go .java .js "
        ".jsx .mjs .cjs .php .py .pyi .pyw .rb .rs .tsx .ts .mts .cts"
    ).split()
)
NAMES = frozenset(
    (
        "authors changelog changes contributing copying license licence notice readme dockerfile "
        "gemfile jenkinsfile makefile rakefile"
    ).split()
)
"""Files of a folder that are sent: those that the service reads, by suffix or by name."""

Paths = str | Path | Sequence[str | Path]
Documents = Sequence[DocumentInput | Mapping[str, object]]


class Labels(TypedDict, total=False):
    """Said of all files that do not say it themselves; `base_url` goes before their paths."""

    license: str
    lang: str
    metadata: Mapping[str, str | int | float | bool]
    base_url: str


class Filling:
    """One call of `Collections.add`: its requests, and the reports on them put together.

    `calls` gives the next request once the one before was `reported` or `refused`.
    """

    def __init__(
        self, name: str, path: str, files: Paths, documents: Documents, labels: Labels
    ) -> None:
        """Raises `InvalidRequest` for wrong documents, and where a path leads to nothing."""
        self._name, self._path, self._fields = name, path, _fields(labels)
        self._documents = documents and checked(DocumentsRequest, {"documents": list(documents)})
        self._batches = deque(_batches(list(_named(files))))
        self._sent: list[tuple[str, Path]] = []
        self._files: list[FileReport] = []

    def calls(self) -> Iterator[Call]:
        """Yield the requests, one after the other."""
        if self._documents:
            yield Call("POST", self._path, self._documents, patient=True)
        while self._batches:
            read = [
                ((name, path), part)
                for name, path in self._batches.popleft()
                for part in self._read(name, path)
            ]
            self._sent, parts = [file for file, _ in read], [part for _, part in read]
            if parts:
                yield Call("POST", self._path, files=parts, fields=self._fields, patient=True)

    def reported(self, report: IngestionReport) -> None:
        """Take what became of the last request."""
        self._files += report.files

    def refused(self, error: PayloadTooLarge) -> None:
        """Take that the last request was too large: its files go out one by one, or have failed.

        Raises the error where it was no request of files.
        """
        if not self._sent:
            raise error
        if len(self._sent) > 1:
            self._batches.extendleft([file] for file in reversed(self._sent))
        else:
            self._fail(self._sent[0][0], str(error))

    def report(self) -> IngestionReport:
        """Put all reports together."""
        return IngestionReport(
            collection=self._name,
            counts=dict(Counter(file.outcome for file in self._files)),
            documents=sum(file.documents for file in self._files),
            passages=sum(file.passages for file in self._files),
            files=self._files,
        )

    def _read(self, name: str, path: Path) -> Iterator[tuple[str, bytes, str]]:
        try:
            data = path.read_bytes()
        except OSError as error:
            self._fail(name, f"{name!r} cannot be read: {error.strerror}.")
        else:
            yield name, data, mimetypes.guess_type(name)[0] or "application/octet-stream"

    def _fail(self, name: str, reason: str) -> None:
        failed = {"outcome": "failed", "documents": 0, "passages": 0, "errors": [reason]}
        self._files.append(FileReport.model_validate({"file": name, **failed}))


def _fields(labels: Labels) -> dict[str, str]:
    fields = {key: str(value) for key, value in labels.items() if key != "metadata"}
    if "metadata" in labels:
        fields["metadata"] = json.dumps(dict(labels["metadata"]))
    return fields


def _batches(files: Sequence[tuple[str, Path]]) -> Iterator[list[tuple[str, Path]]]:
    batch: list[tuple[str, Path]] = []
    size = 0
    for name, path in files:
        length = _length(path)
        if batch and (size + length > BATCH_BYTES or len(batch) == BATCH_FILES):
            yield batch
            batch, size = [], 0
        batch.append((name, path))
        size += length
    if batch:
        yield batch


def _length(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        # Reading it will tell what is wrong with it.
        return 0


def _named(files: Paths) -> Iterator[tuple[str, Path]]:
    for path in [files] if isinstance(files, str | Path) else files:
        root = Path(path)
        if root.is_dir():
            found = sorted(file for file in root.rglob("*") if _is_sent(file, root))
            yield from ((file.relative_to(root).as_posix(), file) for file in found)
        elif root.is_file():
            yield root.name, root
        else:
            raise InvalidRequest(f"There is no file or folder {str(path)!r}.", param="files")


def _is_sent(file: Path, root: Path) -> bool:
    hidden = any(part.startswith(".") for part in file.relative_to(root).parts)
    name = PurePosixPath(file.name.lower())
    read = name.name in NAMES or name.suffix in SUFFIXES
    return read and not hidden and not file.is_symlink() and file.is_file()
