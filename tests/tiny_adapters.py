"""Random PEFT adapters over the tiny model: different ranks, scales and target modules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

SHAPES: dict[str, dict[str, Any]] = {
    "red": {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj", "down_proj"]},
    "green": {"r": 8, "lora_alpha": 4, "target_modules": ["k_proj", "o_proj", "up_proj"]},
    "blue": {
        "r": 2,
        "lora_alpha": 6,
        "target_modules": ["q_proj", "gate_proj"],
        "use_rslora": True,
    },
}


def write_adapters(tiny: Path, root: Path) -> dict[str, Path]:
    folders = {}
    for seed, (name, shape) in enumerate(SHAPES.items()):
        torch.manual_seed(seed + 1)
        model = AutoModelForCausalLM.from_pretrained(tiny)
        peft = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **shape))
        with torch.no_grad():
            for key, parameter in peft.named_parameters():
                if "lora_" in key:
                    parameter.normal_(std=0.2)
        peft.save_pretrained(root / name)
        folders[name] = root / name
    return folders
