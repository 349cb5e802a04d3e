"""Pairs of decisions kept on disk, within bounds: the latest of each replica."""

from __future__ import annotations

import errno
import json
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from router.comparison import Pair
from router.lineup import VersionError

LOG_FOLDER = ".compared"
SEGMENT_LINES = 5_000
MOST_FILES = 32

_TEXTS = ("role", "current", "other", "lead", "other_lead")
_LISTS = ("chosen", "other_chosen")
_NUMBERS = ("at", "divergence")


class ComparisonLog:
    """The log of one process: a file of its own, and the one before it, `lines` pairs each.

    When it begins, files of other processes go, the oldest first, beyond `files`. No text of a
    request is kept. Not for several threads.
    """

    def __init__(self, folder: Path, lines: int = SEGMENT_LINES, files: int = MOST_FILES) -> None:
        self._folder, self._lines, self._files = folder, lines, files
        self._stem = f"{socket.gethostname()}-{os.getpid()}-{time.time_ns():x}"
        self._written = 0

    def add(self, found: Pair) -> None:
        """Append a pair. Raises `OSError` where the folder cannot be written."""
        path = self._folder / f"{self._stem}.jsonl"
        if self._written == 0:
            self._make_room()
        elif self._written % self._lines == 0:
            os.replace(path, self._folder / f"{self._stem}.old.jsonl")
        text = json.dumps(asdict(found), ensure_ascii=False) + "\n"
        line = text.encode("utf-8", "replace")
        with path.open("ab", buffering=0) as file:
            start = file.tell()
            try:
                if file.write(line) < len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            except OSError:
                # Half a line would make one with the next.
                file.truncate(start)
                raise
        self._written += 1

    def _make_room(self) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        files = sorted(self._folder.glob("*.jsonl"), key=lambda path: path.stat().st_mtime_ns)
        for path in files[: max(0, len(files) - self._files + 1)]:
            path.unlink(missing_ok=True)


def read_pairs(folder: Path) -> Iterator[Pair]:
    """Yield what all processes logged, in no certain order.

    The piece behind the last end of line is being written and left out. Raises `VersionError` for
    a line that is no pair.
    """
    for path in sorted(folder.glob("*.jsonl")):
        try:
            lines = path.read_bytes().split(b"\n")[:-1]
        except FileNotFoundError:
            # It was renamed or removed since it was listed.
            continue
        for number, line in enumerate(lines, start=1):
            yield _pair(line, f"{path}:{number}")


def _pair(line: bytes, where: str) -> Pair:
    try:
        body: dict[str, Any] = json.loads(line)
        fields: dict[str, Any] = {key: str(body[key]) for key in _TEXTS}
        fields |= {key: tuple(str(name) for name in body[key]) for key in _LISTS}
        fields |= {key: float(body[key]) for key in _NUMBERS}
        return Pair(**fields)
    except (KeyError, TypeError, ValueError) as error:
        raise VersionError(f"{where}: not a pair of decisions ({error}).") from error
