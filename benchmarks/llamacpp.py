"""Eight concurrent requests on four experts against llama.cpp's server without any adapter."""

from __future__ import annotations

import asyncio
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
from benchmarks.child import Child, child, has
from benchmarks.gguf_file import write_gguf
from benchmarks.measure import interleave, ratios, spread
from benchmarks.prompts import EXPERTS, ragged_text
from benchmarks.report import Goal, Row, Section
from benchmarks.workbench import Workbench, running

REQUESTS = 8
PACKAGE = "xllamacpp"
# Ours in this dtype against these files; the first is what the goal is about.
PAIRS = {"int8": ("int8", "q4_1"), "float32": ("float32",)}


@contextmanager
def serving(bench: Workbench, python: str, kind: str) -> Iterator[Child]:
    """llama.cpp with one slot per request and the embedded model as a file of this kind."""
    path = write_gguf(bench.folder, bench.scratch / f"{kind}.gguf", kind)
    script = Path(__file__).with_name("llamacpp_child.py")
    template = bench.folder / "chat_template.jinja"
    settings = (path, bench.threads, REQUESTS, template)
    with child([python, str(script), *map(str, settings)]) as server:
        yield server
    path.unlink()


def llamacpp(bench: Workbench) -> Section:
    """Tokens per second of both sides, ours in process, theirs in a process of its own."""
    python = bench.llamacpp_python or sys.executable
    if not has(python, PACKAGE):
        note = f"skipped: {python} has no {PACKAGE}; see --llamacpp-python"
        return Section("llamacpp", [], [note])
    dice = random.Random(3)
    prompts = [bench.prompt(ragged_text(dice, 1)) for _ in range(REQUESTS)]
    rows: list[Row] = []
    for dtype, kinds in PAIRS.items():
        for kind in kinds:
            with serving(bench, python, kind) as server:
                rows += _compare(bench, server, prompts, dtype, kind)
    note = (
        f"{REQUESTS} requests of {_count(bench)} new tokens, {sum(map(len, prompts))} prompt tokens"
    )
    return Section("llamacpp", rows, [note, version(python)])


def _compare(
    bench: Workbench, server: Child, prompts: Sequence[Sequence[int]], dtype: str, kind: str
) -> list[Row]:
    count, total = _count(bench), _count(bench) * REQUESTS
    answers: list[str] = []

    def theirs() -> float:
        found = server.ask({"prompts": prompts, "count": count})
        answers[:] = found["texts"]
        # ggml's threads watch for work a little while before they sleep.
        time.sleep(0.3)
        return float(found["seconds"])

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
            f"ours {dtype}, 4 experts, vs llama.cpp {label(kind)}, no LoRA",
            ratios(times["theirs"], times["ours"]),
            Goal(1.0, at_most=False) if kind == dtype else None,
            detail=f"base answers: {same} of {REQUESTS} the same, {share:.0%} of the text",
        ),
        Row(f"ours {dtype}", speeds["ours"], unit="tokens/s"),
        Row(f"llama.cpp {label(kind)}", speeds["theirs"], unit="tokens/s"),
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


def label(kind: str) -> str:
    """llama.cpp's name of a kind of file."""
    return {"int8": "Q8_0", "q4_1": "Q4_1", "float32": "F32"}[kind]


def version(python: str) -> str:
    """The package's version, and the instruction sets that it was built for."""
    code = (
        f"import importlib.metadata as m, {PACKAGE} as x; "
        f"print(m.version('{PACKAGE}'), x.get_system_info())"
    )
    found = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    return f"{PACKAGE} {found.stdout.strip()}"
