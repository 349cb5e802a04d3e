"""The expert engine against its peers: same weights, prompts, threads and arrivals, in one run.

    make bench-engine ARGS="--only mixtures,stream"

Prints a table per section and writes JSON; a section that was measured earlier stays in the file.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from rich.console import Console

from benchmarks.arrivals import arrivals, queue
from benchmarks.bandwidth import bandwidth
from benchmarks.gated import gated
from benchmarks.latency import latency
from benchmarks.llamacpp import llamacpp
from benchmarks.machine import Company, await_quiet, circumstances
from benchmarks.mixtures import greedy, sampled
from benchmarks.report import Section, save, show
from benchmarks.servers import http
from benchmarks.stream import stream
from benchmarks.thousand import thousand
from benchmarks.vllm_peer import vllm
from benchmarks.workbench import Workbench

SECTIONS: dict[str, Callable[[Workbench], Section]] = {
    "bandwidth": bandwidth,
    "stream": stream,
    "gated": gated,
    "mixtures": sampled,
    "greedy": greedy,
    "latency": latency,
    "thousand": thousand,
    "llamacpp": llamacpp,
    "vllm": vllm,
    "http": http,
    "trace": arrivals,
    "queue": queue,
}


def main() -> None:
    """Measure the chosen sections."""
    options = parser().parse_args()
    chosen = options.only or list(SECTIONS)
    unknown = sorted(set(chosen) - set(SECTIONS))
    if unknown:
        raise SystemExit(f"no section {', '.join(unknown)}; there are {', '.join(SECTIONS)}")
    logging.getLogger("transformers").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning)
    # A log file has no width of its own.
    console = Console() if sys.stdout.isatty() else Console(width=150)
    bench = Workbench(
        options.threads,
        options.quick,
        options.dtype,
        llamacpp_python=options.llamacpp_python,
        vllm_python=options.vllm_python,
        adapters=options.adapters,
        device=options.device,
    )
    try:
        for name in chosen:
            if options.wait:
                await_quiet()
            # The load average before a section is that of others; during it, mostly its own.
            found, company = circumstances(options.threads), Company()
            section = SECTIONS[name](bench)
            found["others"] = company.cores()
            show(section, console)
            console.print(f"others used {found['others']} of {found['cores']} cores meanwhile\n")
            if not options.quick:
                save(options.out, [section], found)
    finally:
        bench.close()


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    found.add_argument(
        "--only",
        type=lambda text: text.split(","),
        help=f"sections, separated by commas: {', '.join(SECTIONS)}",
    )
    found.add_argument("--quick", action="store_true", help="tiny sizes; writes no results")
    found.add_argument("--wait", action="store_true", help="until the machine is quiet")
    found.add_argument("--threads", type=int, default=2, help="of torch and of the peers")
    found.add_argument("--device", default="cpu", help="of both sides: cpu, cuda, cuda:1")
    found.add_argument("--dtype", default="float32", help="of our side in mixtures, stream, trace")
    found.add_argument("--llamacpp-python", default="", help="an interpreter that has xllamacpp")
    found.add_argument("--vllm-python", default="", help="an interpreter that has vLLM")
    found.add_argument("--adapters", type=Path, help="folder for thousand; else it writes its own")
    found.add_argument("--out", type=Path, default=Path("benchmarks/results/engine.json"))
    return found


if __name__ == "__main__":
    main()
