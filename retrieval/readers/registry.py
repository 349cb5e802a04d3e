"""Which reader a file gets: by its first bytes where they tell, else by its name or media type."""

from __future__ import annotations

import re
import zipfile
from pathlib import PurePosixPath

from retrieval.document import TextFormat
from retrieval.errors import EmptySource
from retrieval.original import Original
from retrieval.readers.content import Reader
from retrieval.readers.docx import read_docx
from retrieval.readers.encoding import is_binary
from retrieval.readers.html import read_html
from retrieval.readers.jsonl import read_lines
from retrieval.readers.pdf import read_pdf
from retrieval.readers.plain import plain_reader

_SUFFIXES = {
    TextFormat.TEXT: ".txt .text .rst .adoc .org .tex .log .srt .vtt",
    TextFormat.MARKDOWN: ".md .markdown .mdx .qmd",
    TextFormat.CODE: (
        ".bash .bat .cfg .clj .cmake .conf .css .csv .dart .elm .ex .exs .fish .gradle .graphql "
        ".groovy .hs .ini .jl .json .kt .kts .less .lua .m .mk .ml .nix .pl .pm .properties .proto "
        ".ps1 .r .sass .scala .scss .sh .sql .swift .tf .toml .tsv .vue .xml .yaml .yml .zig .zsh"
    ),
    TextFormat.C: ".c .h",
    TextFormat.CPP: ".cc .cpp .cxx .hh .hpp .hxx .cu .cuh",
    TextFormat.C_SHARP: ".cs",
    TextFormat.GO: ".go",
    TextFormat.JAVA: ".java",
    TextFormat.JAVASCRIPT: ".js .jsx .mjs .cjs",
    TextFormat.PHP: ".php",
    TextFormat.PYTHON: ".py .pyi .pyw",
    TextFormat.RUBY: ".rb",
    TextFormat.RUST: ".rs",
    TextFormat.TSX: ".tsx",
    TextFormat.TYPESCRIPT: ".ts .mts .cts",
}
_NAMES = {
    TextFormat.TEXT: "authors changelog changes contributing copying license licence notice readme",
    TextFormat.CODE: "dockerfile gemfile jenkinsfile makefile rakefile",
}
_PLAIN = {
    suffix: plain_reader(format) for format, found in _SUFFIXES.items() for suffix in found.split()
}
_BY_NAME = {
    name: plain_reader(format) for format, found in _NAMES.items() for name in found.split()
}
_BY_SUFFIX: dict[str, Reader] = {
    **_PLAIN,
    **dict.fromkeys((".html", ".htm", ".xhtml"), read_html),
    **dict.fromkeys((".jsonl", ".ndjson"), read_lines),
    ".pdf": read_pdf,
    ".docx": read_docx,
}
_BY_MEDIA_TYPE: dict[str, Reader] = {
    "application/jsonl": read_lines,
    "application/x-ndjson": read_lines,
    "application/xhtml+xml": read_html,
    "text/html": read_html,
    "text/markdown": _PLAIN[".md"],
    "text/plain": _PLAIN[".txt"],
    "text/x-python": _PLAIN[".py"],
}
_PROGRAMS = frozenset(
    suffix for format, found in _SUFFIXES.items() if format.is_code for suffix in found.split()
)
# A comment ends at its first "-->", or each would double the ways to part those before it.
_HTML = re.compile(
    rb"\s*(?:<!--(?:(?!-->).)*-->\s*)*<(?:!doctype\s+html|html[\s>])", re.IGNORECASE | re.DOTALL
)
_OLE = bytes.fromhex("d0cf11e0a1b11ae1")
_ENCRYPTED = "EncryptedPackage".encode("utf-16-le")

READABLE = "text, Markdown, HTML, PDF, DOCX, JSON Lines and source code"
"""What is read, for messages."""


def is_readable(name: str) -> bool:
    """Say whether a file of this name is of a kind that is read."""
    path = PurePosixPath(name.lower())
    return path.name in _BY_NAME or path.suffix in _BY_SUFFIX


def is_program(name: str) -> bool:
    """Say whether a file of this name is source code."""
    return PurePosixPath(name.lower()).suffix in _PROGRAMS


def reader_for(original: Original) -> Reader:
    """Choose the reader of a file.

    Raises `UnreadableSource` for an empty file and for one of a kind that is not read.
    """
    head = original.head()
    if not head.strip():
        raise EmptySource(f"{original.name!r} is empty.")
    if b"%PDF-" in head[:1024]:
        return read_pdf
    if head.startswith(b"PK\x03\x04"):
        return _archive_reader(original)
    if head.startswith(_OLE):
        raise original.unreadable(_old_office(original))
    return _text_reader(original, head)


def _text_reader(original: Original, head: bytes) -> Reader:
    chosen = _BY_SUFFIX.get(original.suffix) or _BY_NAME.get(
        original.name.rpartition("/")[2].lower()
    )
    chosen = chosen or _BY_MEDIA_TYPE.get(original.media_type)
    if is_binary(head):
        what = (
            f"is no {original.suffix[1:].upper()}"
            if chosen in (read_pdf, read_docx)
            else "is binary"
        )
        raise original.unreadable(f"{what}; read are {READABLE}")
    misnamed = chosen in (None, read_pdf, read_docx, _PLAIN[".txt"])
    if misnamed and _HTML.match(head):
        return read_html
    if chosen in (read_pdf, read_docx):
        raise original.unreadable(f"is no {original.suffix[1:].upper()}, but text")
    return chosen or _PLAIN[".txt"]


def _archive_reader(original: Original) -> Reader:
    try:
        with original.open() as opened, zipfile.ZipFile(opened) as archive:
            names = set(archive.namelist())
    except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError) as error:
        kind = "DOCX" if original.suffix == ".docx" else "archive"
        raise original.unreadable(f"is a broken {kind} ({error})") from error
    if "word/document.xml" not in names and "[Content_Types].xml" not in names:
        raise original.unreadable("is an archive; unpack it first")
    if not any(name.startswith("word/") for name in names):
        raise original.unreadable(
            f"is an Office file of a kind that is not read; read are {READABLE}"
        )
    return read_docx


def _old_office(original: Original) -> str:
    # Word's encryption wraps a DOCX into the container of the old formats.
    with original.open() as opened:
        encrypted = _ENCRYPTED in opened.read(1 << 20)
    if encrypted:
        return "is encrypted; remove its password first"
    return "is in Word's or Excel's format before 2007; save it as DOCX or PDF"
