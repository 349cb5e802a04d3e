"""Losses of known answers under several experts against PEFT's forward pass, row by row."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

from experts.adapters import load_adapter
from experts.answer_losses import answer_losses
from experts.examples import Example, Row
from experts.runner import Runner

pytestmark = pytest.mark.models
LENGTHS = [(5, 1), (40, 33), (300, 90), (3, 7), (64, 500)]


@pytest.fixture(scope="module")
def adapted(tiny_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    base = AutoModelForCausalLM.from_pretrained(tiny_dir)
    model = get_peft_model(base, LoraConfig(r=4, target_modules="all-linear"))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.2)
    folder = tmp_path_factory.mktemp("adapted") / "a"
    model.save_pretrained(folder)
    return folder


def examples() -> list[Example]:
    dice = torch.Generator().manual_seed(3)
    return [
        Example(
            Row(str(n), f"prompt {n}", "answer"),
            tuple(torch.randint(5, 900, (prompt + answer,), generator=dice).tolist()),
            prompt,
        )
        for n, (prompt, answer) in enumerate(LENGTHS)
    ]


def test_losses_are_those_of_the_plain_model(tiny_dir: Path, adapted: Path) -> None:
    runner = Runner(tiny_dir, device="cpu", threads=1, cache_tokens=8192)
    runner.load([load_adapter("a", adapted, runner.linears)])
    seen: list[tuple[int, int]] = []
    found = list(
        answer_losses(runner, [{}, {"a": 1.0}], examples(), lambda d, t: seen.append((d, t)))
    )
    assert seen[-1] == (len(LENGTHS), len(LENGTHS))
    assert runner.arena.free_tokens == runner.arena.capacity
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_dir), adapted)
    model.eval()
    for one, example in zip(found, examples(), strict=True):
        assert one.example == example
        with torch.inference_mode(), model.disable_adapter():
            plain = loss(model, example)
        with torch.inference_mode():
            wanted = (plain, loss(model, example))
        assert one.losses == pytest.approx([float(losses.mean()) for losses in wanted], abs=1e-4)
        for tokens, losses in zip(one.by_token, wanted, strict=True):
            assert tokens == pytest.approx(losses.tolist(), abs=1e-3)


def loss(model: torch.nn.Module, example: Example) -> torch.Tensor:
    logits = model(torch.tensor([example.tokens])).logits[0]
    behind = slice(example.prompt_length - 1, -1)
    targets = torch.tensor(example.tokens[example.prompt_length :])
    return cross_entropy(logits[behind], targets, reduction="none")
