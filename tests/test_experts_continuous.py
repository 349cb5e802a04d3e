"""The engine against transformers' own continuous batching: the base, and a single adapter."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from peft import PeftModel
from tiny_adapters import write_adapters
from transformers import AutoModelForCausalLM, GenerationConfig

from experts.adapters import load_adapter
from experts.engine import Engine, WeightedGate
from experts.generation import Sampling
from experts.limits import EngineLimits
from experts.runner import Runner

pytestmark = pytest.mark.models

PROMPTS = [[5, 6, 7], list(range(40, 75)), [900, 31, 8, 15, 16], [77], list(range(300, 312))]
LENGTH = 20


@pytest.mark.parametrize("name", ["plain", "red"])
async def test_greedy_tokens_are_those_of_continuous_batching(
    tiny_dir: Path, tmp_path: Path, name: str, device: str
) -> None:
    adapter = write_adapters(tiny_dir, tmp_path)["red"]
    runner = Runner(tiny_dir, device=device, dtype="float32", threads=1, cache_tokens=4096)
    runner.load([load_adapter("red", adapter, runner.linears)])
    runner.ends = frozenset()
    engine = Engine(runner, EngineLimits(context=256))
    engine.start()
    gate = {} if name == "plain" else {name: 1.0}

    async def ask(prompt: list[int]) -> list[str]:
        stream = engine.generate(
            "", prompt, [WeightedGate(gate, 1.0)], Sampling(LENGTH, logprobs=0)
        )
        return [p.token async for chunk in stream for p in chunk.logprobs]

    found = await asyncio.gather(*(ask(prompt) for prompt in PROMPTS))
    engine.stop()
    assert found == _truth(tiny_dir, adapter if name == "red" else None, runner)


def _truth(tiny: Path, adapter: Path | None, runner: Runner) -> list[list[str]]:
    model = AutoModelForCausalLM.from_pretrained(tiny)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    settings = GenerationConfig(
        max_new_tokens=LENGTH,
        do_sample=False,
        eos_token_id=-1,
        pad_token_id=0,
        num_blocks=64,
        max_batch_tokens=128,
    )
    outputs = model.eval().generate_batch(inputs=PROMPTS, generation_config=settings)
    decode = runner.tokenizer.decode
    by_prompt = {tuple(o.prompt_ids): o.generated_tokens for o in outputs.values()}
    return [
        [decode([t], skip_special_tokens=False) for t in by_prompt[tuple(prompt)]]
        for prompt in PROMPTS
    ]
