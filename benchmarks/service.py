"""A server as its users start it: a process of its own, stopped with everything that it started."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

_READY_SECONDS = 400
_STOP_SECONDS = 90


@contextmanager
def service(
    command: Sequence[str], url: str, *, ready: str, log: Path, env: Mapping[str, str]
) -> Iterator[str]:
    """Start a server, wait until the path `ready` answers 200, yield `url`, stop it.

    Raises:
        RuntimeError: it has ended or is not ready in time, with the end of its log.
    """
    with log.open("wb") as sink:
        # A session of its own, so that what it leaves behind can be found.
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            env={**os.environ, **env},
            start_new_session=True,
        )
    try:
        _await_ready(process, url + ready, log)
        yield url
    finally:
        _stop(process)


def free_port() -> int:
    """A port of the loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _await_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    with httpx.Client(timeout=10, trust_env=False) as http:
        while time.monotonic() < deadline and process.poll() is None:
            with suppress(httpx.TransportError):
                if http.get(url).status_code == 200:
                    return
            time.sleep(0.5)
    raise RuntimeError(f"the server is not ready: {log.read_text(errors='replace')[-3000:]}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGINT)
    try:
        process.wait(timeout=_STOP_SECONDS)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
