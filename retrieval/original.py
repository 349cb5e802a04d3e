"""An original: a file as it came, from disk or by upload, before anything is read out of it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from retrieval.document import MAX_ID_LENGTH
from retrieval.errors import UnreadableSource

LARGEST_FILE = 268_435_456
"""Bytes of a file that is read whole; JSON Lines are read line by line and may have any length."""

_HEAD = 4096
_BLOCK = 1_048_576
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_DRIVE = re.compile(r"[A-Za-z]:")


class Original:
    """A file by its name in the collection; `opener` gives its bytes, as often as asked.

    The name is a relative path with forward slashes; nothing is ever opened by it. Raises
    `UnreadableSource` where it is not one.
    """

    def __init__(
        self, name: str, opener: Callable[[], BinaryIO], *, root: str = "", media_type: str = ""
    ) -> None:
        """`root` is the folder that was added, "" for what has no place on this machine."""
        self.name = valid_file_name(name)
        self.root = root
        self.media_type = media_type.partition(";")[0].strip().lower()
        self._opener = opener

    @classmethod
    def at(cls, path: Path, folder: Path) -> Original:
        """The file at `path`, named by its path below `folder`."""
        name = path.relative_to(folder).as_posix()
        return cls(name, lambda: path.open("rb"), root=str(folder.resolve()))

    @classmethod
    def of(cls, name: str, data: bytes, media_type: str = "") -> Original:
        """The bytes of an upload."""
        return cls(name, lambda: BytesIO(data), media_type=media_type)

    @property
    def suffix(self) -> str:
        """The last suffix of the name in lower case, ".md"; "" without any."""
        return PurePosixPath(self.name).suffix.lower()

    def open(self) -> BinaryIO:
        """Open it at its beginning; the caller closes it. Raises `UnreadableSource`."""
        try:
            return self._opener()
        except OSError as error:
            raise self.unreadable(f"cannot be read: {error.strerror}") from error

    def head(self) -> bytes:
        """Return its first 4096 bytes. Raises `UnreadableSource`."""
        return self._read(_HEAD)

    def read(self) -> bytes:
        """Return all of it. Raises `UnreadableSource` where it is longer than `LARGEST_FILE`."""
        data = self._read(LARGEST_FILE + 1)
        if len(data) > LARGEST_FILE:
            raise self.unreadable(
                f"has more than {LARGEST_FILE >> 20} MiB; split it, or make JSON Lines of it"
            )
        return data

    def sha256(self) -> str:
        """Return the SHA-256 of its bytes in hexadecimal. Raises `UnreadableSource`."""
        with self.open() as opened:
            try:
                return _digest(opened).hexdigest()
            except OSError as error:
                raise self.unreadable(f"cannot be read: {error.strerror}") from error

    def unreadable(self, reason: str) -> UnreadableSource:
        """The error that this file cannot be read for a reason."""
        return UnreadableSource(f"{self.name!r} {reason}.")

    def _read(self, most: int) -> bytes:
        with self.open() as opened:
            try:
                return opened.read(most)
            except OSError as error:
                raise self.unreadable(f"cannot be read: {error.strerror}") from error


def _digest(opened: BinaryIO) -> hashlib._Hash:
    digest = hashlib.sha256()
    while block := opened.read(_BLOCK):
        digest.update(block)
    return digest


def valid_file_name(name: str) -> str:
    """Return `name` if it is a relative path that stays below its folder.

    Raises `UnreadableSource` otherwise.
    """
    reason = _refusal(name)
    if reason:
        raise UnreadableSource(f"{name[:200]!r} cannot name a file: {reason}.")
    return name


def _refusal(name: str) -> str:
    parts = name.split("/")
    reasons = {
        "it is empty": not name,
        f"it has more than {MAX_ID_LENGTH} characters": len(name) > MAX_ID_LENGTH,
        "it holds control characters": _CONTROL.search(name) is not None,
        "it is not Unicode": not name.isascii() and not _is_unicode(name),
        "paths are relative, with forward slashes": name.startswith("/")
        or "\\" in name
        or _DRIVE.match(name) is not None,
        "'.' and '..' lead out of the folder": not {"", ".", ".."}.isdisjoint(parts),
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


def _is_unicode(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
