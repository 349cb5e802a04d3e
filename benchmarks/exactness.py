"""Proof on the real experts that the cheap methods give the mixture: draws and greedy texts.

    python -m benchmarks.exactness --draws 5000 --tokens 10000

Draws: from each of five prefixes, `--draws` first tokens at each sampling setting, through the
engine with everything that it does to a request, by chi-square against the weighted sum of
softmaxes. Bins are merged to an expectation of 5. Greedy: `--tokens` tokens by speculation against
lock-step; where two texts part, the two likeliest tokens must have been within 1e-4.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track

from benchmarks.machine import circumstances
from benchmarks.prompts import EXPERTS, QUESTIONS
from benchmarks.workbench import Workbench
from experts.arena import BLOCK
from experts.engine import Engine, WeightedGate
from experts.generation import Chunk, Sampling
from experts.limits import EngineLimits
from experts.method import Method
from experts.runner import Runner, Work
from experts.sampling import mix, tempered
from experts.template import render_prompt

WEIGHTS = (0.4, 0.3, 0.2, 0.1)
SETTINGS = ((Method.LATENT, 1.0, 1.0), (Method.DRAW_ONCE, 1.0, 1.0), (Method.SPECULATIVE, 0.7, 0.9))
NEAR_TIE = 1e-4
console = Console()


@dataclass(frozen=True)
class Draws:
    """One chi-square test."""

    method: str
    prefix: int
    temperature: float
    top_p: float
    draws: int
    bins: int
    p_value: float


@dataclass(frozen=True)
class Greedy:
    """Texts compared; `parted` is the number that differ, all at near ties if `worst` is small."""

    tokens: int
    texts: int
    parted: int
    worst: float


def members() -> list[WeightedGate]:
    """The four experts with their weights."""
    gates = [{} if name == "general" else {name: 1.0} for name in EXPERTS]
    return [WeightedGate(gate, weight) for gate, weight in zip(gates, WEIGHTS, strict=True)]


def mixture(runner: Runner, tokens: Sequence[int]) -> torch.Tensor:
    """Log-probabilities of the mixture behind `tokens`, from one packed step."""
    rows = [runner.arena.reserve(len(tokens)) for _ in WEIGHTS]
    works = [
        Work(row, member.gate, tokens, [len(tokens) - 1])
        for row, member in zip(rows, members(), strict=True)
        if row is not None
    ]
    logps = mix(torch.cat(runner.run(works)), WEIGHTS)
    for work in works:
        runner.arena.release(work.cache, (), [])
    runner.arena.clear()
    return logps.cpu()


async def ask(
    engine: Engine, prompt: Sequence[int], sampling: Sampling, method: Method
) -> list[Chunk]:
    """All chunks of one answer."""
    posterior = method is Method.DRAW_ONCE
    stream = engine.generate("", prompt, members(), sampling, posterior=posterior, method=method)
    return [chunk async for chunk in stream]


def chi_square(counts: Counter[str], expected: dict[str, float], draws: int) -> tuple[int, float]:
    """(bins, upper tail of the statistic); texts that are rare together make one bin."""
    bins: list[tuple[float, float]] = []
    seen = mass = 0.0
    for text, probability in sorted(expected.items(), key=lambda item: item[1]):
        seen, mass = seen + counts[text], mass + probability * draws
        if mass >= 5:
            bins.append((seen, mass))
            seen = mass = 0.0
    bins[-1] = (bins[-1][0] + seen, bins[-1][1] + mass)
    if len(bins) == 1:
        # One text holds nearly everything: there is nothing to tell apart.
        return 1, 1.0
    statistic = sum((found - truth) ** 2 / truth for found, truth in bins)
    tail = torch.special.gammaincc(
        torch.tensor((len(bins) - 1) / 2, dtype=torch.float64),
        torch.tensor(statistic / 2, dtype=torch.float64),
    )
    return len(bins), float(tail)


async def test_draws(engine: Engine, truths: Sequence[torch.Tensor], draws: int) -> list[Draws]:
    """Every setting from every prefix."""
    found = []
    for number, (prompt, logps) in enumerate(zip(prefixes(engine.runner), truths, strict=True)):
        for method, temperature, top_p in SETTINGS:
            counts: Counter[str] = Counter()
            for start in track(range(0, draws, 64), f"{method} {number}", console=console):
                seeds = range(start, min(start + 64, draws))
                settings = [Sampling(1, temperature, top_p, seed=seed) for seed in seeds]
                asked = (ask(engine, prompt, one, method) for one in settings)
                counts.update(_text(chunks) for chunks in await asyncio.gather(*asked))
            expected = _by_text(engine, tempered(logps, temperature, top_p))
            bins, tail = chi_square(counts, expected, draws)
            found.append(Draws(method, number, temperature, top_p, draws, bins, tail))
            console.print(found[-1])
    return found


async def test_greedy(engine: Engine, tokens: int) -> Greedy:
    """Speculation against lock-step on as many prompts as it takes."""
    texts = -(-tokens // 100)
    prompts = [
        render_prompt(engine.runner.tokenizer, [("user", f"{QUESTIONS[n % 8]} (Part {n // 8}.)")])
        for n in range(texts)
    ]
    parted, worst = 0, 0.0
    for start in track(range(0, texts, 8), "greedy", console=console):
        some = prompts[start : start + 8]
        fast = [ask(engine, p, Sampling(100), Method.SPECULATIVE) for p in some]
        slow = [ask(engine, p, Sampling(100, logprobs=2), Method.LOCKSTEP) for p in some]
        found = await asyncio.gather(*fast)
        truth = await asyncio.gather(*slow)
        for one, other in zip(found, truth, strict=True):
            if _text(one) != _text(other):
                parted += 1
                worst = max(worst, _margin(_text(one), other))
    return Greedy(texts * 100, texts, parted, worst)


def prefixes(runner: Runner) -> list[list[int]]:
    """Five prompts, cut one token behind a block, so that a draw computes that token alone."""
    prompts = [render_prompt(runner.tokenizer, [("user", text)]) for text in QUESTIONS[:5]]
    return [prompt[: (len(prompt) - 1) // BLOCK * BLOCK + 1] for prompt in prompts]


def _margin(text: str, truth: Sequence[Chunk]) -> float:
    """How far apart the two likeliest tokens were where `text` leaves the truth."""
    so_far = ""
    for said in (p for chunk in truth for p in chunk.logprobs):
        so_far += said.token
        if not text.startswith(so_far):
            return said.top[0][1] - said.top[1][1]
    return 0.0


def _by_text(engine: Engine, probabilities: torch.Tensor) -> dict[str, float]:
    """Tokens that spell the same text, such as parts of one character, fall together."""
    decode = engine.runner.tokenizer.decode
    found: dict[str, float] = {}
    for token in probabilities.nonzero()[:, 0].tolist():
        text = decode([token], skip_special_tokens=True)
        found[text] = found.get(text, 0.0) + float(probabilities[token])
    return found


def _text(chunks: Sequence[Chunk]) -> str:
    return "".join(chunk.text for chunk in chunks)


def main() -> None:
    """Run both tests and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--draws", type=int, default=5000, help="of each prefix and setting")
    parser.add_argument("--tokens", type=int, default=10_000, help="of the greedy comparison")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/exactness.json"))
    options = parser.parse_args()
    bench = Workbench(options.threads, device=options.device)
    runner = bench.runner()
    truths = [mixture(runner, prefix) for prefix in prefixes(runner)]
    engine = Engine(runner, EngineLimits(max_rows=64, max_waiting=1000))
    engine.start()
    draws = asyncio.run(test_draws(engine, truths, options.draws)) if options.draws else []
    greedy = asyncio.run(test_greedy(engine, options.tokens))
    engine.stop()
    console.print(greedy)
    body = {
        "circumstances": {**circumstances(options.threads), "device": options.device},
        "weights": dict(zip(EXPERTS, WEIGHTS, strict=True)),
        "draws": [asdict(one) for one in draws],
        "greedy": asdict(greedy),
    }
    options.out.write_text(json.dumps(body, indent=1) + "\n")


if __name__ == "__main__":
    main()
