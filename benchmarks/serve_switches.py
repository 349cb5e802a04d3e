"""What Ray Serve's throughput switches are worth on this machine: the gateway, off and on.

For each setting the service is started as a user starts it; then `/healthz` (proxy and gateway) and
`/v1/models` are asked by 1 and by 8 clients. Prints a table and writes JSON.

    make bench-serve ARGS="--seconds 5"
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import signal
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

import httpx

SETTINGS: dict[str, dict[str, str]] = {
    "default": {"RAY_SERVE_THROUGHPUT_OPTIMIZED": "0", "RAY_SERVE_ENABLE_HA_PROXY": "0"},
    "throughput": {"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1", "RAY_SERVE_ENABLE_HA_PROXY": "0"},
    "throughput + haproxy": {
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
    },
}
PATHS = ("/healthz", "/v1/models")
CLIENTS = (1, 8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/serve_switches.json"))
    options = parser.parse_args()
    rows = []
    for name, switches in SETTINGS.items():
        rows += [{"setting": name, **row} for row in measure(switches, options.seconds)]
    body = {"machine": machine(), "seconds": options.seconds, "rows": rows}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(body, indent=1))
    sys.stdout.write(table(rows))


def measure(switches: dict[str, str], seconds: float) -> list[dict[str, object]]:
    port = free_port()
    command = [sys.executable, "-c", "from orchestrator.cli import main; main()", "serve"]
    process = subprocess.Popen(
        [*command, "--port", str(port), "--no-index"],
        env={**os.environ, **switches},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_ready(url, process)
        return [
            {"path": path, "clients": clients, **asyncio.run(load(url + path, clients, seconds))}
            for path in PATHS
            for clients in CLIENTS
        ]
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=90)


async def load(url: str, clients: int, seconds: float) -> dict[str, float]:
    delays: list[float] = []
    async with httpx.AsyncClient(timeout=30) as http:
        await asyncio.gather(*(_one(http, url, time.monotonic() + 1, []) for _ in range(clients)))
        started = time.monotonic()
        end = started + seconds
        await asyncio.gather(*(_one(http, url, end, delays) for _ in range(clients)))
        took = time.monotonic() - started
    ordered = sorted(delays)
    return {
        "requests_per_second": round(len(delays) / took, 1),
        "p50_ms": round(statistics.median(ordered) * 1000, 2),
        "p99_ms": round(ordered[int(len(ordered) * 0.99)] * 1000, 2),
    }


async def _one(http: httpx.AsyncClient, url: str, end: float, delays: list[float]) -> None:
    while time.monotonic() < end:
        started = time.monotonic()
        (await http.get(url)).raise_for_status()
        delays.append(time.monotonic() - started)


def wait_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 400
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(f"{url}/readyz", timeout=10).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.5)
    raise SystemExit("the service did not become ready")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def machine() -> dict[str, object]:
    return {"cpus": os.cpu_count(), "python": platform.python_version(), "arch": platform.machine()}


def table(rows: list[dict[str, object]]) -> str:
    lines = [
        "| setting | path | clients | requests/s | p50 ms | p99 ms |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        keys = ("setting", "path", "clients", "requests_per_second", "p50_ms", "p99_ms")
        lines.append("| " + " | ".join(str(row[key]) for key in keys) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
