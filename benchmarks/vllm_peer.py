"""Eight concurrent requests on four adapters against vLLM with the same adapters, in float32."""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.asking import Heard, ask, differs_at
from benchmarks.child import Child, child, has
from benchmarks.measure import interleave, ratios, spread
from benchmarks.prompts import ragged_text
from benchmarks.report import Goal, Row, Section
from benchmarks.workbench import FOURTH, Workbench, running
from experts.adapters import EMBEDDED, embedded_adapters
from experts.runner import Runner

PACKAGE = "vllm"
REQUESTS = 8
DTYPE = "float32"
SETTINGS: Mapping[str, Any] = {
    "dtype": DTYPE,
    "max_model_len": 512,
    "max_num_seqs": REQUESTS,
    "enable_lora": True,
    "max_loras": 4,
    "max_lora_rank": 8,
}


def vllm(bench: Workbench) -> Section:
    """Tokens per second of both sides, ours in process, theirs in a process of its own."""
    if not has(bench.vllm_python or sys.executable, PACKAGE):
        python = bench.vllm_python or sys.executable
        return Section("vllm", [], [f"skipped: {python} has no {PACKAGE}; see --vllm-python"])
    folders = adapter_folders(bench)
    command = [
        bench.vllm_python or sys.executable,
        str(Path(__file__).with_name("vllm_child.py")),
        # Our prefix cache is emptied before each run.
        json.dumps({**SETTINGS, "model": str(bench.folder), "enable_prefix_caching": False}),
        json.dumps({name: str(folder) for name, folder in folders.items()}),
    ]
    # In one process, as ours: else its scheduler's busy loop takes a core from the two threads.
    env = {**environment(bench.threads), "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    with child(command, env) as peer:
        rows = _compare(bench, peer, list(folders))
    notes = [
        f"{REQUESTS} requests of {_count(bench)} new tokens",
        f"vLLM {peer.greeting['version']}, compilation {peer.greeting['compilation']} (it compiles "
        f"nothing where there are LoRA adapters on a CPU), in one process, {bench.threads} threads "
        "pinned, no prefix cache",
    ]
    return Section("vllm", rows, notes)


def adapter_folders(bench: Workbench) -> dict[str, Path]:
    """The three embedded adapters and a fourth."""
    return {**{n: EMBEDDED / n for n in embedded_adapters()}, FOURTH: bench.fourth_folder()}


def environment(threads: int) -> dict[str, str]:
    """Variables that pin vLLM's threads to the first cores, one each, and keep it offline."""
    cores = sorted(os.sched_getaffinity(0))[:threads]
    return {
        "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, cores)),
        "OMP_NUM_THREADS": str(threads),
        "OMP_PLACES": ",".join(f"{{{core}}}" for core in cores),
        "OMP_PROC_BIND": "close",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }


def _compare(bench: Workbench, peer: Child, names: Sequence[str]) -> list[Row]:
    dice = random.Random(4)
    prompts = [bench.prompt(ragged_text(dice, 1)) for _ in range(REQUESTS)]
    experts = [names[n % len(names)] for n in range(REQUESTS)]
    runner = bench.with_fourth(DTYPE)
    heard: list[Heard] = []
    answers: list[list[int]] = []
    order = {"prompts": prompts, "experts": experts, "count": _count(bench)}

    def theirs() -> float:
        found = peer.ask(order)
        answers[:] = found["answers"]
        # OpenMP's threads watch for work a little while before they sleep.
        time.sleep(0.3)
        return float(found["seconds"])

    sides: dict[str, Callable[[], float]] = {
        "ours": partial(_ours, runner, prompts, experts, _count(bench), heard),
        "theirs": theirs,
    }
    times = interleave(sides, bench.rounds(5))
    # Adapters that did nothing would all write the same.
    one = peer.ask({**order, "prompts": prompts[:1] * len(names), "experts": names})
    texts = len({tuple(tokens) for tokens in one["answers"]})
    runner.unload([FOURTH])
    total = _count(bench) * REQUESTS
    speeds = {name: spread([total / t for t in taken]) for name, taken in times.items()}
    return [
        Row(
            f"{REQUESTS} requests on 4 adapters vs vLLM, {DTYPE}",
            ratios(times["theirs"], times["ours"]),
            Goal(1.0, at_most=False),
            detail=f"{_agreement(bench, heard, answers, experts)}; vLLM's adapters write {texts} "
            "texts behind one prompt",
        ),
        Row("ours", speeds["ours"], unit="tokens/s"),
        Row("vLLM", speeds["theirs"], unit="tokens/s"),
    ]


def _ours(
    runner: Runner,
    prompts: Sequence[Sequence[int]],
    experts: Sequence[str],
    count: int,
    heard: list[Heard],
) -> float:
    async def run() -> float:
        async with running(runner) as engine:
            started = time.perf_counter()
            jobs = [
                ask(engine, prompt, expert, count)
                for prompt, expert in zip(prompts, experts, strict=True)
            ]
            heard[:] = await asyncio.gather(*jobs)
            return time.perf_counter() - started

    return asyncio.run(run())


def _agreement(
    bench: Workbench, heard: Sequence[Heard], answers: Sequence[list[int]], experts: Sequence[str]
) -> str:
    places = [
        differs_at(bench, one.text, tokens) for one, tokens in zip(heard, answers, strict=True)
    ]
    same = sum(place is None for place in places)
    equal = {e for e, place in zip(experts, places, strict=True) if place is None}
    shared = sum(
        len(tokens) if place is None else place
        for tokens, place in zip(answers, places, strict=True)
    )
    share = shared / sum(map(len, answers))
    return (
        f"{same} of {len(places)} answers the same, of {len(equal)} adapters; "
        f"{share:.0%} of the tokens before the first difference"
    )


def _count(bench: Workbench) -> int:
    return bench.size(64, 16)
