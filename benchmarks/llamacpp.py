"""Eight concurrent requests on four experts against llama.cpp's server without any adapter."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from os.path import commonprefix
from pathlib import Path

from benchmarks.asking import ask
from benchmarks.gguf_file import write_gguf
from benchmarks.measure import interleave, ratios, spread
from benchmarks.prompts import EXPERTS, ragged_text
from benchmarks.report import Goal, Row, Section
from benchmarks.workbench import Workbench, running

REQUESTS = 8
PACKAGE = "xllamacpp"
# Ours in this dtype against these files; the first is what the goal is about.
PAIRS = {"int8": ("int8", "q4_1"), "float32": ("float32",)}


class Server:
    """llama.cpp in a child process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._line()

    def ask(self, prompts: Sequence[Sequence[int]], count: int) -> tuple[float, list[str]]:
        """Seconds and answers for all prompts at once."""
        if self._process.stdin is None:
            raise RuntimeError("llama.cpp has no input")
        self._process.stdin.write(json.dumps({"prompts": prompts, "count": count}) + "\n")
        self._process.stdin.flush()
        found = json.loads(self._line())
        return float(found["seconds"]), found["texts"]

    def _line(self) -> str:
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            raise RuntimeError("llama.cpp has ended early")
        return line


@contextmanager
def serving(python: str, path: Path, threads: int) -> Iterator[Server]:
    """llama.cpp with one slot per request."""
    child = Path(__file__).with_name("llamacpp_child.py")
    process = subprocess.Popen(
        [python, str(child), str(path), str(threads), str(REQUESTS)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield Server(process)
    finally:
        if process.stdin is not None:
            process.stdin.close()
        process.wait(timeout=30)


def llamacpp(bench: Workbench) -> Section:
    """Tokens per second of both sides, ours in process, theirs in a process of its own."""
    python = bench.llamacpp_python or sys.executable
    if subprocess.run([python, "-c", f"import {PACKAGE}"], capture_output=True).returncode:
        note = f"skipped: {python} has no {PACKAGE}; see --llamacpp-python"
        return Section("llamacpp", [], [note])
    dice = random.Random(3)
    prompts = [bench.prompt(ragged_text(dice, 1)) for _ in range(REQUESTS)]
    rows: list[Row] = []
    for dtype, kinds in PAIRS.items():
        for kind in kinds:
            path = write_gguf(bench.folder, bench.scratch / f"{kind}.gguf", kind)
            with serving(python, path, bench.threads) as server:
                rows += _compare(bench, server, prompts, dtype, kind)
            path.unlink()
    note = (
        f"{REQUESTS} requests of {_count(bench)} new tokens, {sum(map(len, prompts))} prompt tokens"
    )
    return Section("llamacpp", rows, [note, _version(python)])


def _compare(
    bench: Workbench, server: Server, prompts: Sequence[Sequence[int]], dtype: str, kind: str
) -> list[Row]:
    count, total = _count(bench), _count(bench) * REQUESTS
    answers: list[str] = []

    def theirs() -> float:
        took, found = server.ask(prompts, count)
        answers[:] = found
        # ggml's threads watch for work a little while before they sleep.
        time.sleep(0.3)
        return took

    texts: list[str] = []
    four = [EXPERTS[n % len(EXPERTS)] for n in range(REQUESTS)]
    sides: dict[str, Callable[[], float]] = {
        "ours": partial(_ours, bench, dtype, prompts, four, []),
        "theirs": theirs,
    }
    times = interleave(sides, bench.rounds(5))
    _ours(bench, dtype, prompts, [EXPERTS[0]] * REQUESTS, texts)
    same = sum(a == b for a, b in zip(texts, answers, strict=True))
    common = sum(len(commonprefix(pair)) for pair in zip(texts, answers, strict=True))
    share = common / sum(map(len, answers))
    speeds = {name: spread([total / t for t in taken]) for name, taken in times.items()}
    return [
        Row(
            f"ours {dtype}, 4 experts, vs llama.cpp {_label(kind)}, no LoRA",
            ratios(times["theirs"], times["ours"]),
            Goal(1.0, at_most=False) if kind == dtype else None,
            detail=f"base answers: {same} of {REQUESTS} the same, {share:.0%} of the text",
        ),
        Row(f"ours {dtype}", speeds["ours"], unit="tokens/s"),
        Row(f"llama.cpp {_label(kind)}", speeds["theirs"], unit="tokens/s"),
    ]


def _ours(
    bench: Workbench,
    dtype: str,
    prompts: Sequence[Sequence[int]],
    experts: Sequence[str],
    texts: list[str],
) -> float:
    async def run() -> float:
        async with running(bench.runner(dtype)) as engine:
            started = time.perf_counter()
            jobs = [
                ask(engine, prompt, expert, _count(bench))
                for prompt, expert in zip(prompts, experts, strict=True)
            ]
            texts[:] = [heard.text for heard in await asyncio.gather(*jobs)]
            return time.perf_counter() - started

    return asyncio.run(run())


def _count(bench: Workbench) -> int:
    return bench.size(64, 8)


def _label(kind: str) -> str:
    return {"int8": "Q8_0", "q4_1": "Q4_1", "float32": "F32"}[kind]


def _version(python: str) -> str:
    code = (
        f"import importlib.metadata as m, {PACKAGE} as x; "
        f"print(m.version('{PACKAGE}'), x.get_system_info())"
    )
    found = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    return f"{PACKAGE} {found.stdout.strip()}"
