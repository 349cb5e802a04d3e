"""The history of a registry: one line for each change, only ever appended."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import asdict
from pathlib import Path

from router.lineup import Change, VersionError, change_from

logger = logging.getLogger(__name__)

HISTORY_FILE = "history.jsonl"


class History:
    """The changes of a registry, oldest first; whoever appends holds the registry's lock.

    A change is made by the lineup's file, which carries it; the line here is written right after.
    `settle` writes the line that a writer killed in between could not.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / HISTORY_FILE

    def read(self, latest: Change | None = None) -> list[Change]:
        """The changes, with `latest` (the lineup's) at the end should its line be missing.

        Raises `VersionError` for a line that is no change.
        """
        found = [self._change(line, n) for n, line in enumerate(self._lines(), start=1)]
        if latest is not None and (not found or found[-1].serial < latest.serial):
            found.append(latest)
        return found

    def settle(self, latest: Change | None) -> None:
        """Append `latest`, the lineup's change, if its line is missing."""
        if latest is not None and self._last_serial() < latest.serial:
            self.append(latest)

    def append(self, change: Change) -> None:
        """Append a change and wait until it is on disk."""
        line = json.dumps(asdict(change), ensure_ascii=False) + "\n"
        with self._path.open("ab") as file:
            # The text behind the last end of line was being written when its writer was killed.
            file.truncate(sum(len(line) for line in self._lines()))
            file.write(line.encode("utf-8", "replace"))
            file.flush()
            os.fsync(file.fileno())

    def _last_serial(self) -> int:
        # A line that cannot be read stops no change: it must be possible to roll back in a hurry.
        lines = self._lines()
        try:
            return self._change(lines[-1], len(lines)).serial if lines else 0
        except VersionError as error:
            logger.warning("%s", error)
            return 0

    def _lines(self) -> list[bytes]:
        if not self._path.is_file():
            return []
        lines = self._path.read_bytes().splitlines(keepends=True)
        return [line for line in lines if line.endswith(b"\n")]

    def _change(self, line: bytes, number: int) -> Change:
        try:
            return change_from(json.loads(line))
        except (KeyError, TypeError, ValueError) as error:
            raise VersionError(f"{self._path}:{number}: not a change ({error}).") from error
