"""Adapters on disk: what is refused and why, and that what is read is what PEFT reads."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_adapters import write_adapters
from transformers import AutoModelForCausalLM

from experts.adapters import (
    CONFIG_FILE,
    EMBEDDED,
    WEIGHTS_FILE,
    AdapterError,
    embedded_adapters,
    load_adapter,
)
from experts.local import LocalExperts, LocalSpec, linear_layers

Linears = dict[str, tuple[int, int]]
Tensors = dict[str, torch.Tensor]
QUERY = "base_model.model.model.layers.0.self_attn.q_proj"


@pytest.fixture(scope="module")
def linears(tiny_dir: Path) -> Linears:
    return linear_layers(tiny_dir)


@pytest.fixture(scope="module")
def written(tiny_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_adapters(tiny_dir, tmp_path_factory.mktemp("adapters"))


@pytest.fixture
def folder(written: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(written["red"], tmp_path / "red"))


def configure(folder: Path, **changes: object) -> None:
    config = json.loads((folder / CONFIG_FILE).read_text())
    (folder / CONFIG_FILE).write_text(json.dumps(config | changes))


def retouch(folder: Path, change: Callable[[Tensors], object]) -> None:
    tensors = load_file(folder / WEIGHTS_FILE)
    change(tensors)
    save_file(tensors, folder / WEIGHTS_FILE)


def refusal(folder: Path, linears: Linears, base: str = "") -> str:
    with pytest.raises(AdapterError) as caught:
        load_adapter("x", folder, linears, base)
    assert str(caught.value).startswith(f"adapter '{folder}' is refused: ")
    return str(caught.value)


def test_another_base_is_refused_by_name(folder: Path, linears: Linears) -> None:
    configure(folder, base_model_name_or_path="meta-llama/Llama-3.2-1B")
    said = refusal(folder, linears, "smollm2-135m-instruct")
    assert "trained over 'meta-llama/Llama-3.2-1B', the base here is 'smollm2-135m-inst" in said


@pytest.mark.parametrize(
    ("recorded", "base"),
    [
        ("HuggingFaceTB/SmolLM2-135M-Instruct", "smollm2-135m-instruct"),
        ("smollm2-135m-instruct", "HuggingFaceTB/SmolLM2-135M-Instruct"),
        ("/home/somebody/models/base", "smollm2-135m-instruct"),
        ("meta-llama/Llama-3.2-1B", "/models/llama"),
        ("meta-llama/Llama-3.2-1B", "~/llama.Q4_0.gguf"),
        ("", "smollm2-135m-instruct"),
        (None, "smollm2-135m-instruct"),
    ],
)
def test_the_same_base_under_another_name_is_taken(
    folder: Path, linears: Linears, recorded: str | None, base: str
) -> None:
    configure(folder, base_model_name_or_path=recorded)
    assert load_adapter("x", folder, linears, base).name == "x"


def test_another_base_is_refused_by_shape(folder: Path, linears: Linears) -> None:
    wider = {path: (2 * a, 2 * b) for path, (a, b) in linears.items()}
    said = refusal(folder, wider)
    assert re.search(r"A \(4, 96\) and B \(48, 4\); this base and r=4 need A \(4, 192\)", said)


def test_a_module_that_the_base_lacks_is_named(folder: Path, linears: Linears) -> None:
    shallow = {path: size for path, size in linears.items() if "layers.1" not in path}
    assert "'model.layers.1.mlp.down_proj' is no linear layer" in refusal(folder, shallow)


def test_a_rank_other_than_the_configured_is_refused(folder: Path, linears: Linears) -> None:
    configure(folder, r=8)
    assert "this base and r=8 need A (8, " in refusal(folder, linears)


@pytest.mark.parametrize("side", ["A", "B"])
def test_a_missing_side_is_named(folder: Path, linears: Linears, side: str) -> None:
    retouch(folder, lambda tensors: tensors.pop(f"{QUERY}.lora_{side}.weight"))
    said = refusal(folder, linears)
    assert f"tensor lora_{side} of 'model.layers.0.self_attn.q_proj' is missing" in said


@pytest.mark.parametrize(
    "targets", [["q_proj", "v_proj", "down_proj"], r".*\.(q_proj|v_proj|down_proj)"]
)
def test_a_target_module_without_tensors_is_named(
    folder: Path, linears: Linears, targets: object
) -> None:
    configure(folder, target_modules=targets)
    assert len(load_adapter("x", folder, linears).weights) == 6
    retouch(folder, lambda t: [t.pop(f"{QUERY}.lora_{side}.weight") for side in "AB"])
    assert "target module 'model.layers.0.self_attn.q_proj' are missing" in refusal(folder, linears)


def test_an_excluded_module_may_be_missing(folder: Path, linears: Linears) -> None:
    retouch(folder, lambda t: [t.pop(f"{QUERY}.lora_{side}.weight") for side in "AB"])
    configure(folder, exclude_modules=["layers.0.self_attn.q_proj"])
    assert len(load_adapter("x", folder, linears).weights) == 5


class Trap:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self._mark),)


def test_a_pickle_is_refused_and_never_opened(
    folder: Path, linears: Linears, tmp_path: Path
) -> None:
    (folder / WEIGHTS_FILE).unlink()
    torch.save({"weight": Trap(tmp_path / "sprung")}, folder / "adapter_model.bin")
    assert "adapter_model.bin is a pickle, which can run code" in refusal(folder, linears)
    assert not (tmp_path / "sprung").exists()


def test_missing_weights_are_named(folder: Path, linears: Linears) -> None:
    (folder / WEIGHTS_FILE).unlink()
    assert f"there is no {WEIGHTS_FILE} in it" in refusal(folder, linears)


def test_weights_without_any_tensor_are_refused(folder: Path, linears: Linears) -> None:
    retouch(folder, lambda tensors: tensors.clear())
    assert "holds no LoRA tensors" in refusal(folder, linears)


@pytest.mark.parametrize(
    "stray",
    [
        "base_model.model.lm_head.weight",
        f"{QUERY}.lora_magnitude_vector",
        f"{QUERY}.lora_B.bias",
        "base_model.model.model.embed_tokens.lora_embedding_A",
        "something",
    ],
)
def test_a_stray_tensor_is_named(folder: Path, linears: Linears, stray: str) -> None:
    retouch(folder, lambda tensors: tensors.update({stray: torch.zeros(4)}))
    assert f"tensor {stray!r} is not part of a plain LoRA" in refusal(folder, linears)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"use_dora": True}, r"DoRA \(use_dora\) cannot be gated"),
        ({"modules_to_save": ["lm_head"]}, r"modules_to_save"),
        ({"trainable_token_indices": [5]}, "trained token embeddings"),
        ({"target_parameters": ["experts.up"]}, "adapters of bare parameters"),
        ({"layer_replication": [[0, 2]]}, "layer replication"),
        ({"lora_bias": True}, "LoRA biases"),
        (
            {"alora_invocation_tokens": []},
            r"alora_invocation_tokens must be a list of .*, not \[\]",
        ),
        ({"alora_invocation_tokens": "go"}, "alora_invocation_tokens must be .*, not 'go'"),
        ({"alora_invocation_tokens": [1, -2]}, r"alora_invocation_tokens must .*, not \[1, -2\]"),
        ({"alora_invocation_tokens": [1, True]}, "alora_invocation_tokens must be a list of token"),
        ({"alora_invocation_tokens": [1.0]}, "alora_invocation_tokens must be a list of token"),
        ({"alora_invocation_tokens": 0}, "alora_invocation_tokens must be a list of token"),
        ({"bias": "all"}, r"trained biases \(bias='all'\)"),
        ({"init_lora_weights": "pissa_niter_4"}, "changes the base model too"),
        ({"init_lora_weights": "OLoRA"}, "changes the base model too"),
        ({"peft_type": "IA3"}, "peft_type must be LORA"),
        ({"r": "8"}, "r must be a positive integer, not '8'"),
        ({"r": 0}, "r must be a positive integer, not 0"),
        ({"rank_pattern": {"q_proj": 0}}, r"rank_pattern\['q_proj'\] must be a positive integer"),
        ({"rank_pattern": [1]}, "rank_pattern must be an object"),
        ({"alpha_pattern": {"q_proj": "x"}}, r"alpha_pattern\['q_proj'\] must be a finite number"),
        ({"lora_alpha": float("nan")}, "lora_alpha must be a finite number, not nan"),
    ],
)
def test_what_cannot_be_gated_is_refused_by_name(
    folder: Path, linears: Linears, change: dict[str, object], reason: str
) -> None:
    configure(folder, **change)
    assert re.search(reason, refusal(folder, linears))


@pytest.mark.parametrize(("tokens", "expected"), [([1, 520], (1, 520)), ([0], (0,)), (None, ())])
def test_an_adapter_keeps_what_it_waits_for(
    folder: Path, linears: Linears, tokens: list[int] | None, expected: tuple[int, ...]
) -> None:
    configure(folder, alora_invocation_tokens=tokens)
    adapter = load_adapter("x", folder, linears)
    assert adapter.invocation == expected
    assert adapter.like(torch.zeros(1, dtype=torch.float16)).invocation == expected


@pytest.mark.parametrize("body", [b"not json", b"\xff\xfe", b"[]", b'"LORA"'])
def test_a_config_that_is_no_json_object_is_refused(
    folder: Path, linears: Linears, body: bytes
) -> None:
    (folder / CONFIG_FILE).write_bytes(body)
    assert re.search("is not JSON|peft_type must be LORA", refusal(folder, linears))


def test_a_folder_that_is_not_there_is_named(tmp_path: Path, linears: Linears) -> None:
    assert f"there is no {CONFIG_FILE} in it" in refusal(tmp_path / "nowhere", linears)


@pytest.mark.parametrize("kept", [0.5, 0.0])
def test_damaged_weights_are_refused(folder: Path, linears: Linears, kept: float) -> None:
    body = (folder / WEIGHTS_FILE).read_bytes()
    (folder / WEIGHTS_FILE).write_bytes(body[: int(len(body) * kept)])
    assert f"{WEIGHTS_FILE} is damaged" in refusal(folder, linears)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused(
    folder: Path, linears: Linears, value: float
) -> None:
    retouch(folder, lambda tensors: tensors[f"{QUERY}.lora_B.weight"][0].fill_(value))
    assert "q_proj' holds values that are not finite" in refusal(folder, linears)


def test_one_bad_adapter_stops_the_whole_expert_group(
    written: dict[str, Path], folder: Path, tiny_dir: Path
) -> None:
    configure(folder, use_dora=True)
    spec = LocalSpec(
        str(tiny_dir), (("good", str(written["green"])), ("bad", str(folder))), threads=1
    )
    with pytest.raises(AdapterError, match=f"{folder}.*DoRA"):
        LocalExperts(spec)


@pytest.mark.parametrize(
    "shape",
    [
        {"r": 4, "lora_alpha": 6},
        {"r": 4, "lora_alpha": 6, "use_rslora": True},
        {
            "rank_pattern": {"q_proj": 2, r"layers\.1\.mlp\.up_proj": 7, "layers.0": 3},
            "alpha_pattern": {"^model.layers.1.self_attn.q_proj": 20, "up_proj": 5},
            "r": 4,
            "lora_alpha": 6,
        },
        {"rank_pattern": {"q_proj": 9}, "alpha_pattern": {"proj": 1}, "use_rslora": True, "r": 2},
        {"r": 3, "layers_to_transform": [1]},
        {"r": 3, "exclude_modules": r".*layers\.0.*"},
    ],
    ids=["plain", "rslora", "patterns", "patterns and rslora", "one layer", "excluded"],
)
def test_the_merged_delta_is_that_of_peft(
    tiny_dir: Path, linears: Linears, tmp_path: Path, shape: dict[str, Any]
) -> None:
    torch.manual_seed(3)
    targets = {"target_modules": ["q_proj", "up_proj", "o_proj"], "task_type": "CAUSAL_LM"}
    peft = get_peft_model(
        AutoModelForCausalLM.from_pretrained(tiny_dir), LoraConfig(**targets, **shape)
    )
    for name, parameter in peft.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    peft.save_pretrained(tmp_path)
    plain = AutoModelForCausalLM.from_pretrained(tiny_dir)
    again = AutoModelForCausalLM.from_pretrained(tiny_dir)
    merged = PeftModel.from_pretrained(again, tmp_path).merge_and_unload()
    weights = load_adapter("x", tmp_path, linears).weights
    assert weights
    for module in linears:
        delta = merged.get_submodule(module).weight - plain.get_submodule(module).weight
        pair = weights.get(module)
        found = pair.scale * pair.b @ pair.a if pair else torch.zeros_like(delta)
        torch.testing.assert_close(found, delta, atol=2e-6, rtol=1e-5)


def test_the_embedded_adapters_are_those_of_the_default() -> None:
    assert embedded_adapters() == ["code", "legal", "multilingual"]


@pytest.mark.models
@pytest.mark.parametrize("name", embedded_adapters())
def test_an_embedded_adapter_fits_the_embedded_base(name: str, base_dir: Path) -> None:
    linears = linear_layers(base_dir)
    adapter = load_adapter(name, EMBEDDED / name, linears, "smollm2-135m-instruct")
    assert adapter.weights.keys() == linears.keys()
    assert {pair.rank for pair in adapter.weights.values()} == {8}


@pytest.mark.parametrize("name", embedded_adapters())
def test_an_embedded_adapter_is_small_and_says_where_it_comes_from(name: str) -> None:
    folder = EMBEDDED / name
    with safe_open(folder / WEIGHTS_FILE, framework="pt") as file:
        assert {file.get_tensor(key).dtype for key in file.keys()} == {torch.float16}
    assert (folder / WEIGHTS_FILE).stat().st_size < 6_000_000
    assert {p.name for p in folder.iterdir()} == {CONFIG_FILE, WEIGHTS_FILE, "README.md", "LICENSE"}
    card = (folder / "README.md").read_text()
    assert f"collegium train expert --name {name} " in card
    # Share-alike data makes share-alike weights; the data table names every licence.
    kind = "by-sa" if re.search(r"\| CC-BY-SA-\d", card) else "by"
    assert f"\nlicense: cc-{kind}-4.0\n" in card
    assert f"creativecommons.org/licenses/{kind}/4.0" in (folder / "LICENSE").read_text()
    assert not re.search("GPL|Artistic|Debian-FAQ", card.partition("## Data")[2])


@pytest.mark.parametrize("name", embedded_adapters())
def test_an_embedded_adapter_names_no_folder_of_the_machine_it_was_made_on(name: str) -> None:
    for path in (p for p in (EMBEDDED / name).iterdir() if p.name != WEIGHTS_FILE):
        found = re.findall(r"(?:^|[\s\"'`=(])((?:/|~/|[A-Z]:\\)[\w.~-]+)", path.read_text())
        assert found == [], path.name
