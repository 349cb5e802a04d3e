"""Questions whose answers have the length that our experts give them, for servers of both sides.

Over HTTP our answers end where the expert ends them. So that both sides write equally many tokens,
the lengths are found beforehand, in process, and every request asks for its own.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from benchmarks.asking import Heard, ask
from benchmarks.prompts import ragged_text
from benchmarks.workbench import FOURTH, Workbench, running


@dataclass(frozen=True)
class Question:
    """A user's text for an expert, and the length of its greedy answer in tokens."""

    expert: str
    text: str
    length: int


def questions(
    bench: Workbench, dtype: str, experts: Sequence[str], longest: int, seed: str
) -> list[Question]:
    """One question for each of the experts, with answers of `longest` tokens at most."""
    dice = random.Random(seed)
    asked = [Question(expert, ragged_text(dice, 1), longest) for expert in experts]
    heard = asyncio.run(_answers(bench, dtype, asked))
    return [replace(one, length=found.tokens) for one, found in zip(asked, heard, strict=True)]


async def _answers(bench: Workbench, dtype: str, asked: Sequence[Question]) -> list[Heard]:
    runner = bench.with_fourth(dtype)
    endless, runner.ends = runner.ends, frozenset({runner.tokenizer.eos_token_id})
    prompts = [bench.prompt(one.text) for one in asked]
    try:
        async with running(runner) as engine:
            jobs = (
                ask(engine, prompt, one.expert, one.length)
                for one, prompt in zip(asked, prompts, strict=True)
            )
            return list(await asyncio.gather(*jobs))
    finally:
        runner.ends = endless
        runner.unload([FOURTH])
