"""Local experts refuse what does not fit before they read the weights of the base."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tiny_adapters import write_adapters
from transformers import AutoModelForCausalLM

from experts.adapters import CONFIG_FILE, WEIGHTS_FILE, AdapterError
from experts.local import LocalExperts, LocalSpec, linear_layers


@pytest.fixture(scope="module")
def written(tiny_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_adapters(tiny_dir, tmp_path_factory.mktemp("adapters"))


@pytest.fixture
def unreadable(tiny_dir: Path, tmp_path: Path) -> Path:
    """The tiny base with weights that nobody can read without an error."""
    folder = Path(shutil.copytree(tiny_dir, tmp_path / "tiny"))
    (folder / "model.safetensors").write_bytes(b"no weights")
    return folder


@pytest.fixture
def folder(written: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(written["red"], tmp_path / "red"))


def opened(base: Path, folder: Path) -> LocalExperts:
    return LocalExperts(LocalSpec(str(base), (("plain", None), ("red", str(folder))), threads=1))


def another_rank(folder: Path) -> str:
    config = json.loads((folder / CONFIG_FILE).read_text())
    (folder / CONFIG_FILE).write_text(json.dumps(config | {"r": 16}))
    return "this base and r=16 need"


def a_missing_tensor(folder: Path) -> str:
    tensors = load_file(folder / WEIGHTS_FILE)
    del tensors["base_model.model.model.layers.1.mlp.down_proj.lora_B.weight"]
    save_file(tensors, folder / WEIGHTS_FILE)
    return "tensor lora_B of 'model.layers.1.mlp.down_proj' is missing"


def a_wider_base(folder: Path) -> str:
    tensors = {
        name: torch.cat([tensor, tensor], dim=1) if "lora_A" in name else tensor
        for name, tensor in load_file(folder / WEIGHTS_FILE).items()
    }
    save_file(tensors, folder / WEIGHTS_FILE)
    return "need A (4, 96)"


def a_pickle(folder: Path) -> str:
    (folder / WEIGHTS_FILE).rename(folder / "adapter_model.bin")
    return "adapter_model.bin is a pickle"


@pytest.mark.parametrize("fault", [another_rank, a_missing_tensor, a_wider_base, a_pickle])
def test_a_bad_adapter_is_refused_and_no_weight_of_the_base_is_read(
    unreadable: Path, folder: Path, fault: Callable[[Path], str]
) -> None:
    reason = fault(folder)
    with pytest.raises(AdapterError) as caught:
        opened(unreadable, folder)
    assert reason in str(caught.value)


def test_an_adapter_of_a_base_by_another_name_is_refused_without_its_weights(
    unreadable: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = json.loads((folder / CONFIG_FILE).read_text())
    named = config | {"base_model_name_or_path": "meta-llama/Llama-3.2-1B"}
    (folder / CONFIG_FILE).write_text(json.dumps(named))
    monkeypatch.chdir(unreadable.parent)
    with pytest.raises(AdapterError, match="trained over 'meta-llama/Llama-3.2-1B', the base here"):
        opened(Path(unreadable.name), folder)


def test_the_weights_that_nobody_can_read_are_read_for_a_good_adapter(
    unreadable: Path, folder: Path
) -> None:
    with pytest.raises(SafetensorError):
        opened(unreadable, folder)


def test_the_layers_known_from_the_configuration_are_those_of_the_loaded_model(
    tiny_dir: Path,
) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_dir)
    expected = {
        name.removesuffix(".weight"): (parameter.shape[1], parameter.shape[0])
        for name, parameter in model.named_parameters()
        if "_proj" in name
    }
    assert linear_layers(tiny_dir) == expected
    assert len(expected) == 14
