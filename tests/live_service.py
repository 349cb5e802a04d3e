"""A service as a user starts it: `collegium serve` in a process of its own, stopped with Ctrl-C."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx


@dataclass
class Live:
    """A running service."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def stop(self) -> int:
        """Ctrl-C; returns the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        return self.process.wait(timeout=90)


def free_port() -> int:
    """A port that nobody is given by chance: Ray's processes take theirs from higher ones."""
    for port in random.sample(range(20_000, 32_000), 50):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError("no free port was found")


@contextmanager
def live_service(
    folder: Path, config: Path | None, port: int, env: Mapping[str, str]
) -> Iterator[Live]:
    """Start, wait until ready, stop."""
    log = folder / "serve.log"
    command = [sys.executable, "-c", "from orchestrator.cli import main; main()", "serve"]
    command += ["--port", str(port)]
    if config is not None:
        command += ["--config", str(config)]
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command, stdout=sink, stderr=subprocess.STDOUT, env={**os.environ, **env}
        )
    live = Live(f"http://127.0.0.1:{port}", process, log)
    try:
        _wait_ready(live)
        yield live
    finally:
        live.stop()


def _wait_ready(live: Live, seconds: float = 400.0) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if live.process.poll() is not None:
            raise RuntimeError(f"the service ended:\n{live.log.read_text()[-4000:]}")
        try:
            if httpx.get(f"{live.url}/readyz", timeout=10).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.5)
    raise RuntimeError(f"the service was not ready in time:\n{live.log.read_text()[-4000:]}")
