"""The embedded adapters merged into one, as PEFT does it: the alternative to mixing them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from peft import PeftModel
from transformers import AutoModelForCausalLM

from benchmarks.workbench import Workbench
from experts.adapters import EMBEDDED, Adapter, embedded_adapters, load_adapter

MERGES = {"linear merge": "linear", "TIES merge": "ties"}
_DENSITY = 0.5


def merged_adapters(bench: Workbench, linears: Mapping[str, tuple[int, int]]) -> list[Adapter]:
    """Uniform linear merge, and TIES (Yadav et al. 2023, arXiv 2306.01708) at density 0.5."""
    names = embedded_adapters()
    base = AutoModelForCausalLM.from_pretrained(bench.folder)
    model = PeftModel.from_pretrained(base, EMBEDDED / names[0], adapter_name=names[0])
    for name in names[1:]:
        model.load_adapter(EMBEDDED / name, adapter_name=name)
    made = []
    for name, kind in MERGES.items():
        folder = bench.scratch / kind
        options = {"density": _DENSITY} if kind == "ties" else {}
        weights = [1 / len(names)] * len(names)
        model.add_weighted_adapter(names, weights, kind, combination_type=kind, **options)
        model.save_pretrained(folder, selected_adapters=[kind])
        made.append(load_adapter(name, _inside(folder, kind), linears))
    return made


def _inside(folder: Path, kind: str) -> Path:
    nested = folder / kind
    return nested if nested.is_dir() else folder
