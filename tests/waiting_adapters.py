"""Adapters over the tiny model that wait for an invocation, and PEFT's own answers for them."""

from __future__ import annotations

import functools
import json
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

MARKS = {"dawn": (7001, 7002), "dusk": (7100,), "noon": (7001, 7002), "night": (7200, 7201, 7202)}
"""What each adapter waits for; `red` waits for nothing."""

_TARGETS = [["q_proj", "v_proj", "down_proj"], ["k_proj", "o_proj", "up_proj"]]


def write_waiting(tiny: Path, root: Path) -> dict[str, Path]:
    """PEFT folders of random adapters by name."""
    folders = {}
    for seed, name in enumerate(("red", *MARKS)):
        torch.manual_seed(seed)
        marks = list(MARKS[name]) if name in MARKS else None
        config = LoraConfig(
            r=2 + seed % 3,
            lora_alpha=6,
            target_modules=_TARGETS[seed % 2],
            task_type="CAUSAL_LM",
            alora_invocation_tokens=marks,
        )
        peft = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny), config)
        with torch.no_grad():
            for key, parameter in peft.named_parameters():
                if "lora_" in key:
                    parameter.normal_(std=0.2)
        peft.save_pretrained(root / name)
        folders[name] = root / name
    return folders


class Truth:
    """PEFT's own forward and generate."""

    def __init__(self, tiny: Path, folders: Mapping[str, Path]) -> None:
        self.base = AutoModelForCausalLM.from_pretrained(tiny).eval()
        (first, folder), *others = folders.items()
        again = AutoModelForCausalLM.from_pretrained(tiny)
        self.model = PeftModel.from_pretrained(again, folder, adapter_name=first)
        for name, folder in others:
            self.model.load_adapter(folder, adapter_name=name)
        self.model.eval()
        self.behind = functools.cache(lambda name, tokens: self.logits(name, tokens)[-1])

    @torch.inference_mode()
    def logits(self, name: str, tokens: Sequence[int], **offsets: object) -> torch.Tensor:
        """[tokens, vocabulary]; without offsets PEFT looks for the invocation in all tokens."""
        if name != "plain":
            self.model.set_adapter(name)
        model = self.base if name == "plain" else self.model
        found = model(input_ids=torch.tensor([list(tokens)]), **offsets).logits[0]
        return torch.as_tensor(found)

    def generate(self, name: str, prompt: Sequence[int], count: int) -> list[int]:
        if name != "plain":
            self.model.set_adapter(name)
        model = self.base if name == "plain" else self.model
        options = {"max_new_tokens": count, "do_sample": False, "eos_token_id": -1}
        found = model.generate(input_ids=torch.tensor([list(prompt)]), pad_token_id=0, **options)
        return [int(token) for token in found[0, len(prompt) :]]


def text(length: int, seed: int, **marks: int) -> list[int]:
    """Random tokens with the invocations of these adapters at these places."""
    dice = random.Random(seed)
    tokens = [dice.randrange(10, 6000) for _ in range(length)]
    for name, place in marks.items():
        tokens[place : place + len(MARKS[name])] = MARKS[name]
    return tokens


@torch.inference_mode()
def blended(
    tiny: Path,
    folders: Mapping[str, Path],
    gate: Mapping[str, float],
    starts: Mapping[str, int],
    tokens: Sequence[int],
) -> torch.Tensor:
    """Logits [vocabulary] behind the tokens: each adapter's weighted update from its start on."""
    model = AutoModelForCausalLM.from_pretrained(tiny)
    for name, start in starts.items():
        config = json.loads((folders[name] / "adapter_config.json").read_text())
        tensors = load_file(folders[name] / "adapter_model.safetensors")
        acts = (torch.arange(len(tokens)) >= start)[:, None] * gate[name] * config["lora_alpha"]
        for key in (key for key in tensors if "lora_A" in key):
            module = key.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
            delta = tensors[key.replace("lora_A", "lora_B")] @ tensors[key] / config["r"]
            model.get_submodule(module).register_forward_hook(_adding(acts, delta))
    return torch.as_tensor(model(torch.tensor([list(tokens)])).logits[0, -1])


def _adding(acts: torch.Tensor, delta: torch.Tensor) -> Callable[..., torch.Tensor]:
    return lambda _module, x, y: y + acts * (x[0] @ delta.T)
