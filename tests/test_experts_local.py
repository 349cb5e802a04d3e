"""Local experts: what does not fit is refused unread; whose turn it is when all rows are taken."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tiny_adapters import write_adapters
from transformers import AutoModelForCausalLM

from experts.adapters import CONFIG_FILE, WEIGHTS_FILE, AdapterError
from experts.generation import Generation, Sampling
from experts.limits import EngineLimits
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


def narrow(base: Path, folders: dict[str, Path], ageing_s: float, rows: int) -> LocalExperts:
    """One adapter at a time, `rows` rows."""
    experts = (("plain", None), *((name, str(folder)) for name, folder in folders.items()))
    limits = EngineLimits(context=512, max_rows=rows, max_tokens_in_cache=2048, ageing_s=ageing_s)
    return LocalExperts(
        LocalSpec(str(base), experts, device="cpu", threads=1, resident=1, limits=limits)
    )


def asked(id: str, expert: str = "plain", priority: int = 0, tokens: int = 4) -> Generation:
    messages = (("user", f"Question {id}"),)
    return Generation(
        id, messages, ((expert, 1.0),), Sampling(tokens, logprobs=0), priority=priority
    )


@asynccontextmanager
async def busy(local: LocalExperts) -> AsyncIterator[None]:
    """All the while an answer is being written."""
    stream = local.generate(asked("busy", tokens=400))
    async with aclosing(stream):
        await anext(stream)
        yield


async def turns(local: LocalExperts, priorities: list[int]) -> list[int]:
    """The order in which requests of these priorities begin that came one by one to a full row."""
    begun: list[int] = []

    async def ask(priority: int) -> None:
        async for chunk in local.generate(asked(f"{priority}", priority=priority)):
            if priority not in begun:
                begun.append(priority)
            del chunk

    tasks = []
    async with busy(local):
        for number, priority in enumerate(priorities, start=1):
            tasks.append(asyncio.create_task(ask(priority)))
            while local.engine.load[1] < number:
                await asyncio.sleep(0.001)
    await asyncio.gather(*tasks)
    return begun


@pytest.mark.models
@pytest.mark.parametrize(
    ("ageing_s", "expected"),
    [(1000.0, [10, 3, 0, -2, -10]), (0.0001, [-2, 0, 10, -10, 3])],
)
async def test_a_free_row_goes_to_the_most_urgent_or_to_who_waited_too_long(
    tiny_dir: Path, ageing_s: float, expected: list[int]
) -> None:
    local = narrow(tiny_dir, {}, ageing_s, rows=1)
    assert await turns(local, [-2, 0, 10, -10, 3]) == expected
    local.engine.stop()


async def relay(local: LocalExperts, over: asyncio.Event) -> None:
    """Urgent answers of `red`, each left only once the next one runs."""
    running = local.generate(asked("0", "red", priority=10, tokens=300))
    await anext(running)
    while not over.is_set():
        following = local.generate(asked("1", "red", priority=10, tokens=300))
        await anext(following)
        await running.aclose()
        running = following
    await running.aclose()


@pytest.mark.models
async def test_a_request_that_others_keep_passing_by_is_let_in_at_last(
    tiny_dir: Path, written: dict[str, Path]
) -> None:
    """Its adapter has no place while that of the others is in use, and it always is."""
    local = narrow(tiny_dir, {n: written[n] for n in ("red", "green")}, 0.01, rows=4)
    over = asyncio.Event()
    others = asyncio.create_task(relay(local, over))
    while local.engine.load[0] < 1:
        await asyncio.sleep(0.001)
    stream = local.generate(asked("last", "green", priority=-10))
    async with asyncio.timeout(10), aclosing(stream):
        assert (await anext(stream)).logprobs
    over.set()
    await others
    assert local.engine.shelf.counters.evictions >= 1
    local.engine.stop()
