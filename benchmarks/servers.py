"""The service over HTTP against llama.cpp's and vLLM's servers over HTTP: eight streams at once."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, pairwise
from typing import Any

from benchmarks import llamacpp as llama
from benchmarks import vllm_peer
from benchmarks.chat import Reply, chat_all
from benchmarks.child import has
from benchmarks.measure import interleave, ratios, spread
from benchmarks.prompts import EXPERTS
from benchmarks.questions import Question, questions
from benchmarks.report import Goal, Row, Section
from benchmarks.service import free_port, service
from benchmarks.workbench import FOURTH, MODEL, Workbench
from experts.adapters import embedded_adapters

STREAMS = 8
Body = Mapping[str, Any]


@dataclass
class Side:
    """One server: how its requests name an expert, and what was heard of it, run by run."""

    name: str
    url: str
    named: Callable[[str], Body]
    heard: list[list[Reply]] = field(default_factory=list)

    def play(self, runs: Sequence[Sequence[Question]]) -> float:
        """Tokens per second of its next run."""
        bodies = [
            {
                "messages": [{"role": "user", "content": one.text}],
                "max_tokens": one.length,
                **self.named(one.expert),
            }
            for one in runs[len(self.heard)]
        ]
        started = time.perf_counter()
        replies = chat_all(self.url, bodies)
        took = time.perf_counter() - started
        self.heard.append(replies)
        # Threads of a server watch for work a little while before they sleep, vLLM's for 1 s.
        time.sleep(1.5)
        return sum(reply.tokens for reply in replies) / took


def http(bench: Workbench) -> Section:
    """Tokens per second over HTTP, our service against each server that there is."""
    rows: list[Row] = []
    notes = [
        f"{STREAMS} streams of at most {_longest(bench)} new tokens, greedy. Each answer has the "
        "length that our expert gives it; peers ignore end tokens. Prompts are new in every run"
    ]
    for python, package, option, compare in (
        (bench.llamacpp_python, llama.PACKAGE, "--llamacpp-python", _with_llamacpp),
        (bench.vllm_python, vllm_peer.PACKAGE, "--vllm-python", _with_vllm),
    ):
        python = python or sys.executable
        if has(python, package):
            found, remarks = compare(bench, python)
            rows += found
            notes += remarks
        else:
            notes.append(f"skipped: {python} has no {package}; see {option}")
    return Section("http", rows, notes)


def _with_llamacpp(bench: Workbench, python: str) -> tuple[list[Row], list[str]]:
    rows: list[Row] = []
    notes = [llama.version(python)]
    for dtype, kinds in llama.PAIRS.items():
        with collegium(bench, dtype) as url:
            for kind in kinds:
                with llama.serving(bench, python, kind) as server:
                    sides = (
                        Side(f"ours {dtype}", url, _ours),
                        Side(
                            f"llama.cpp {llama.label(kind)}, no LoRA",
                            server.greeting["address"],
                            lambda _: {"ignore_eos": True, "cache_prompt": True},
                        ),
                    )
                    goal = dtype == "int8" == kind
                    found, remarks = _compare(bench, dtype, sides, EXPERTS, goal=goal)
                    rows += found
                    notes += remarks
    return rows, notes


def _with_vllm(bench: Workbench, python: str) -> tuple[list[Row], list[str]]:
    dtype = vllm_peer.DTYPE
    with collegium(bench, dtype) as url, _vllm(bench, python) as theirs:
        sides = (
            Side(f"ours {dtype}", url, _ours),
            Side("vLLM", theirs, lambda expert: {"model": expert, "ignore_eos": True}),
        )
        experts = list(vllm_peer.adapter_folders(bench))
        return _compare(bench, dtype, sides, experts, goal=True)


@contextmanager
def collegium(bench: Workbench, dtype: str) -> Iterator[str]:
    """`collegium serve` with one replica of all experts; yields its address."""
    adapters = {name: f"embedded:{name}" for name in embedded_adapters()}
    adapters[FOURTH] = str(bench.fourth_folder())
    experts: dict[str, Any] = {
        name: {"model": "base", "adapter": folder} for name, folder in adapters.items()
    }
    model = {"source": MODEL, "dtype": dtype, "threads": bench.threads, "device": "cpu"}
    body = {
        "models": {"base": model},
        "experts": {EXPERTS[0]: {"model": "base"}, **experts},
        "generalist": EXPERTS[0],
        "placement": "together",
    }
    # Every JSON text is YAML too.
    config = bench.scratch / f"serve-{dtype}.yaml"
    config.write_text(json.dumps(body), encoding="utf-8")
    port = free_port()
    command = [sys.executable, "-c", "from orchestrator.cli import main; main()", "serve"]
    command += ["--config", str(config), "--port", str(port), "--no-index"]
    with _at(bench, command, port, ready="/readyz", env={}) as url:
        yield url


def _vllm(bench: Workbench, python: str) -> AbstractContextManager[str]:
    port = free_port()
    command = [python, "-m", "vllm.entrypoints.cli.main", "serve", str(bench.folder)]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    for key, value in vllm_peer.SETTINGS.items():
        option = f"--{key.replace('_', '-')}"
        command += [option] if value is True else [option, str(value)]
    command.append("--lora-modules")
    command += [f"{n}={folder}" for n, folder in vllm_peer.adapter_folders(bench).items()]
    env = vllm_peer.environment(bench.threads)
    return _at(bench, command, port, ready="/health", env=env)


def _at(
    bench: Workbench, command: Sequence[str], port: int, *, ready: str, env: Mapping[str, str]
) -> AbstractContextManager[str]:
    log = bench.scratch / f"{port}.log"
    return service(command, f"http://127.0.0.1:{port}", ready=ready, log=log, env=env)


def _ours(expert: str) -> Body:
    return {"model": "auto", "routing": {"weights": {expert: 1}, "grounding": "off"}}


def _compare(
    bench: Workbench,
    dtype: str,
    sides: tuple[Side, Side],
    experts: Sequence[str],
    *,
    goal: bool,
) -> tuple[list[Row], list[str]]:
    ours, theirs = sides
    rounds = bench.rounds(5)
    asked = [experts[n % len(experts)] for n in range(STREAMS)]
    runs = [
        questions(bench, dtype, asked, _longest(bench), f"{theirs.name} {number}")
        for number in range(rounds + 1)
    ]
    speeds = interleave({side.name: partial(side.play, runs) for side in sides}, rounds, warm=1)
    pairs = list(zip(chain(*ours.heard), chain(*theirs.heard), strict=True))
    alike = sum(a.prompt_tokens == b.prompt_tokens and a.tokens == b.tokens for a, b in pairs)
    same = sum(a.text == b.text for a, b in pairs)
    rows = [
        Row(
            f"{ours.name}, 4 experts, vs {theirs.name}",
            ratios(speeds[ours.name], speeds[theirs.name]),
            Goal(1.0, at_most=False) if goal else None,
            detail=f"{alike} of {len(pairs)} of equal lengths (prompt and answer), {same} answers "
            "the same",
        ),
        *(Row(name, spread(found), unit="tokens/s") for name, found in speeds.items()),
    ]
    return rows, [_waits(side) for side in sides]


def _waits(side: Side) -> str:
    """First token and gaps; gaps count once all streams of a run have begun."""
    runs = side.heard[1:]
    firsts = [reply.first for run in runs for reply in run]
    tails = [_gaps(run) for run in runs]
    middle = statistics.median(middle for middle, _ in tails)
    tail = statistics.median(tail / middle for middle, tail in tails)
    tokens = sum(reply.tokens for run in runs for reply in run)
    return (
        f"{side.name}: first token {1000 * statistics.median(firsts):.0f} ms (latest "
        f"{1000 * max(firsts):.0f}), gap {1000 * middle:.1f} ms, p99 gap ÷ median {tail:.1f}; "
        f"{tokens} new tokens in {len(runs)} runs"
    )


def _gaps(run: Sequence[Reply]) -> tuple[float, float]:
    """Median and p99 in seconds."""
    begun = max(reply.at[0] for reply in run)
    pairs = [pair for reply in run for pair in pairwise(reply.at)]
    gaps = sorted([b - a for a, b in pairs if a >= begun] or [b - a for a, b in pairs])
    return statistics.median(gaps), gaps[int(len(gaps) * 0.99)]


def _longest(bench: Workbench) -> int:
    return bench.size(64, 16)
