"""A peer in a process of its own: an order is a line of JSON in, the answer a line of JSON out."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO, Any


class Child:
    """A running peer. `greeting` is the object that it sent when it was ready."""

    def __init__(self, process: subprocess.Popen[str], log: IO[bytes]) -> None:
        self._process, self._log = process, log
        self.greeting = self._line()

    def ask(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """Its answer to an order.

        Raises:
            RuntimeError: it has ended, with the last of what it wrote.
        """
        if self._process.stdin is None or self._process.poll() is not None:
            raise RuntimeError(self._last_words())
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return self._line()

    def _line(self) -> dict[str, Any]:
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            raise RuntimeError(self._last_words())
        found: dict[str, Any] = json.loads(line)
        return found

    def _last_words(self) -> str:
        self._log.seek(0)
        return "the peer has ended early: " + self._log.read()[-2000:].decode(errors="replace")


@contextmanager
def child(command: Sequence[str], env: Mapping[str, str] | None = None) -> Iterator[Child]:
    """Start a peer and wait until it is ready; it ends when its input does."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env={**os.environ, **(env or {})},
            text=True,
        )
        try:
            yield Child(process, log)
        finally:
            _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    if process.stdin is not None:
        process.stdin.close()
    try:
        process.wait(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def has(python: str, package: str) -> bool:
    """Whether an interpreter has a package."""
    if shutil.which(python) is None:
        raise SystemExit(f"there is no interpreter {python!r}")
    code = f"import importlib.util as u, sys; sys.exit(u.find_spec({package!r}) is None)"
    return subprocess.run([python, "-c", code], capture_output=True).returncode == 0
