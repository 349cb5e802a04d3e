"""Under which circumstances a figure was measured."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("torch", "transformers", "peft", "numpy")


def circumstances(threads: int) -> dict[str, Any]:
    """Commit, machine, versions, load average and time."""
    return {
        "commit": commit(),
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "threads": threads,
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
        "load": [round(value, 2) for value in os.getloadavg()],
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def commit() -> str:
    """The commit of this checkout, with `+` where files differ from it."""
    head = _git("rev-parse", "--short=12", "HEAD")
    changed = _git("status", "--porcelain", "--", "experts", "benchmarks/*.py")
    return head + ("+" if changed else "")


def cpu_model() -> str:
    """The processor's own name where the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


class Company:
    """How many cores other processes kept busy since this was made (Linux; 0 elsewhere)."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._busy, self._own = _busy_seconds(), _own_seconds()

    def cores(self) -> float:
        """Mean number of cores that others used; children count when they have ended."""
        wall = time.perf_counter() - self._started
        others = (_busy_seconds() - self._busy) - (_own_seconds() - self._own)
        return round(max(0.0, others / wall), 2)


def await_quiet(limit: float = 0.1, window: float = 5.0, patience: float = 1800.0) -> None:
    """Wait until others use less than `limit` cores over a window of seconds, or patience ends."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        company = Company()
        time.sleep(window)
        if company.cores() < limit:
            break


def _busy_seconds() -> float:
    path = Path("/proc/stat")
    if not path.is_file():
        return 0.0
    fields = [int(field) for field in path.read_text(encoding="utf-8").split("\n")[0].split()[1:]]
    user, nice, system, _idle, _wait, hard, soft, stolen = fields[:8]
    ticks = user + nice + system + hard + soft + stolen
    return ticks / os.sysconf("SC_CLK_TCK")


def _own_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _git(*arguments: str) -> str:
    if shutil.which("git") is None:
        return ""
    found = subprocess.run(
        ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return found.stdout.strip()
