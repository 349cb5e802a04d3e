"""Many adapters through few places: what is resident, what waits, and that answers stay right."""

from __future__ import annotations

import asyncio
import random
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from experts.adapters import WEIGHTS_FILE, Adapter, AdapterError
from experts.generation import Chunk, ExpertError, Generation, Late, LocalMode, Sampling
from experts.limits import EngineLimits
from experts.local import LocalExperts, LocalSpec
from experts.loop import StepLoop
from experts.shelf import AdapterShelf

COUNT, RESIDENT = 9, 3


class Disk:
    """Adapters without weights; a load waits until it is let go."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.loaded: list[str] = []

    def load(self, name: str) -> Adapter:
        assert self.go.wait(5)
        self.loaded.append(name)
        if name == "broken":
            raise AdapterError("broken is refused")
        return Adapter(name, {})


def settle(shelf: AdapterShelf, done: threading.Event) -> list[str]:
    assert done.wait(5)
    done.clear()
    return shelf.collect()[1]


@pytest.fixture
def disk() -> Disk:
    return Disk()


def test_an_adapter_loads_in_the_background_and_the_least_used_goes(disk: Disk) -> None:
    done = threading.Event()
    shelf = AdapterShelf(disk.load, capacity=2, notify=done.set)
    for name in ("a", "b"):
        shelf.adopt(name)
    shelf.hold(["a"])
    shelf.release(["a"])
    shelf.want([["c"]])
    assert not shelf.ready(["c"]) and shelf.collect() == ([], [])
    disk.go.set()
    assert settle(shelf, done) == ["b"]
    assert shelf.ready(["c"]) and shelf.resident == ["a", "c"]
    assert (shelf.counters.hits, shelf.counters.loads, shelf.counters.evictions) == (1, 1, 1)


def test_pinned_and_used_adapters_are_never_evicted(disk: Disk) -> None:
    done = threading.Event()
    shelf = AdapterShelf(disk.load, capacity=3, pinned=["a"], notify=done.set)
    for name in ("a", "b", "c"):
        shelf.adopt(name)
    shelf.hold(["b"])
    disk.go.set()
    shelf.want([["d"]])
    assert settle(shelf, done) == ["c"]
    shelf.hold(["d"])
    shelf.want([["c"]])
    assert disk.loaded == ["d"]
    shelf.release(["b"])
    shelf.want([["c"]])
    assert settle(shelf, done) == ["b"]


def test_no_more_is_loaded_than_the_next_jobs_can_use_together(disk: Disk) -> None:
    arrivals = threading.Semaphore(0)
    shelf = AdapterShelf(disk.load, capacity=2, notify=arrivals.release)
    disk.go.set()
    shelf.want([["a"], ["b"], ["c"], ["d"]])
    assert arrivals.acquire(timeout=5) and arrivals.acquire(timeout=5)
    shelf.collect()
    assert sorted(disk.loaded) == sorted(shelf.resident) == ["a", "b"]


def test_a_failed_load_is_told_once_and_tried_again(disk: Disk) -> None:
    done = threading.Event()
    shelf = AdapterShelf(disk.load, capacity=2, notify=done.set)
    disk.go.set()
    for _ in range(2):
        shelf.want([["broken"]])
        settle(shelf, done)
        with pytest.raises(AdapterError, match="broken is refused"):
            shelf.ready(["broken"])
    assert disk.loaded == ["broken", "broken"]


@pytest.fixture(scope="module")
def sure_dir(tiny_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with few likely tokens at a time.

    A draw falls between two tokens' shares of a flat distribution so often that rounding alone,
    which differs with the size of a batch, would tell some answers apart.
    """
    folder = tmp_path_factory.mktemp("sure")
    shutil.copytree(tiny_dir, folder, dirs_exist_ok=True)
    model = AutoModelForCausalLM.from_pretrained(tiny_dir)
    with torch.no_grad():
        model.lm_head.weight.mul_(6)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folders(sure_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root, made = tmp_path_factory.mktemp("shelf"), {}
    for number in range(COUNT):
        torch.manual_seed(number)
        base = AutoModelForCausalLM.from_pretrained(sure_dir)
        config = LoraConfig(r=2 + number % 2, target_modules=["q_proj", "up_proj", "down_proj"])
        peft = get_peft_model(base, config)
        with torch.no_grad():
            for key, parameter in peft.named_parameters():
                if "lora_" in key:
                    parameter.normal_(std=0.3)
        made[f"a{number}"] = root / f"a{number}"
        peft.save_pretrained(made[f"a{number}"])
    return made


def local(tiny: Path, folders: dict[str, Path], resident: int, **limits: int) -> LocalExperts:
    experts = (("plain", None), *((n, str(f)) for n, f in folders.items()))
    bounds = EngineLimits(context=256, max_rows=8, max_tokens_in_cache=1024, **limits)
    return LocalExperts(
        LocalSpec(str(tiny), experts, "cpu", threads=1, resident=resident, limits=bounds)
    )


@pytest.fixture(scope="module")
def roomy(sure_dir: Path, folders: dict[str, Path]) -> Iterator[LocalExperts]:
    opened = local(sure_dir, folders, resident=64)
    yield opened
    opened.engine.stop()


@pytest.fixture(scope="module")
def narrow(sure_dir: Path, folders: dict[str, Path]) -> Iterator[LocalExperts]:
    opened = local(sure_dir, folders, resident=RESIDENT, step_tokens=24, shared_step_tokens=4)
    yield opened
    opened.engine.stop()


async def collect(local: LocalExperts, asked: Generation) -> str:
    chunks: Sequence[Chunk] = [chunk async for chunk in local.generate(asked)]
    return "".join(chunk.text for chunk in chunks)


def asked(rng: random.Random, id: str) -> Generation:
    mode = rng.choice(list(LocalMode))
    names = rng.sample(["plain", *(f"a{n}" for n in range(COUNT))], rng.choice([1, 2, 3]))
    weights = [rng.random() + 0.1 for _ in names]
    temperature = rng.choice([0.0, 0.0, 1.0, 0.8])
    return Generation(
        id=id,
        messages=(
            (
                "user",
                " ".join(rng.choice("red green blue".split()) for _ in range(rng.randrange(1, 60))),
            ),
        ),
        experts=tuple((n, w / sum(weights)) for n, w in zip(names, weights, strict=True)),
        sampling=Sampling(
            rng.randrange(1, 30), temperature, rng.choice([1.0, 0.9]), seed=rng.randrange(99)
        ),
        mode=mode,
        posterior=rng.random() < 0.3,
        principal=rng.choice("xy"),
        priority=rng.choice([0, 0, 1]),
    )


@pytest.mark.models
@pytest.mark.parametrize("seed", range(3))
async def test_random_loads_give_every_request_its_solo_answer(
    roomy: LocalExperts, narrow: LocalExperts, seed: int
) -> None:
    """Random modes, lengths, arrivals, cancellations and evictions; near ties may differ."""
    rng = random.Random(seed)
    requests = [asked(rng, str(n)) for n in range(30)]
    solo = [await collect(roomy, one) for one in requests]
    leaving = set(rng.sample(range(30), 6))

    async def join(number: int) -> str | None:
        await asyncio.sleep(rng.random() * 0.5)
        if number in leaving:
            stream = narrow.generate(requests[number])
            async with aclosing(stream):
                await anext(stream)
            return None
        return await collect(narrow, requests[number])

    found = await asyncio.gather(*(join(n) for n in range(30)))
    stayed = [(a, b) for a, b in zip(found, solo, strict=True) if a is not None]
    assert len(stayed) == 24
    assert sum(a != b for a, b in stayed) <= 1
    counters = narrow.engine.shelf.counters
    assert counters.evictions > 5 and counters.loads > 5
    assert len(narrow.engine.shelf.resident) <= RESIDENT


@pytest.mark.models
async def test_nothing_is_left_behind_when_all_have_gone(narrow: LocalExperts) -> None:
    for _ in range(100):
        if narrow.engine.load == (0, 0):
            break
        await asyncio.sleep(0.02)
    arena = narrow.engine.runner.arena
    assert narrow.engine.load == (0, 0)
    assert arena.free_tokens == arena.capacity


@pytest.mark.models
async def test_stats_may_be_asked_for_at_any_time(roomy: LocalExperts) -> None:
    rng, stop = random.Random(5), threading.Event()
    faults: list[BaseException] = []

    def watch() -> None:
        try:
            while not stop.is_set():
                roomy.stats()
                time.sleep(0.0005)
        except RuntimeError as error:
            faults.append(error)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        await asyncio.gather(*(collect(roomy, asked(rng, str(n))) for n in range(24)))
    finally:
        stop.set()
        watcher.join()
    assert faults == []
    assert roomy.stats()["finished_requests"] >= 24


class Told(StepLoop):
    """A loop that is told something just after it has looked."""

    def _admit(self) -> None:
        super()._admit()
        self.shelf.notify()


@pytest.mark.models
@pytest.mark.parametrize(("kind", "sleeps"), [(StepLoop, True), (Told, False)])
def test_what_is_told_before_the_loop_sleeps_is_not_slept_through(
    roomy: LocalExperts, kind: type[StepLoop], sleeps: bool
) -> None:
    loop = kind(roomy.engine.runner, EngineLimits(), AdapterShelf.of([]))
    started = time.perf_counter()
    for _ in range(5):
        loop._step()
    assert (time.perf_counter() - started > 0.45) is sleeps


@pytest.mark.models
async def test_the_same_beginning_is_computed_once(roomy: LocalExperts) -> None:
    arena = roomy.engine.runner.arena
    history = (("user", "a long story about a lion " * 6),)
    one = Generation("1", history, (("a1", 1.0),), Sampling(8))
    first = await collect(roomy, one)
    before = arena.reused_tokens
    again = await collect(roomy, one)
    reused = arena.reused_tokens - before
    longer = (*history, ("assistant", first), ("user", "and then?"))
    await collect(roomy, Generation("2", longer, (("a1", 1.0),), Sampling(8)))
    assert again == first
    assert reused > len(roomy.prompt(history)) * 0.7
    assert arena.reused_tokens - before - reused >= reused
    before = arena.reused_tokens
    await collect(roomy, Generation("3", history, (("a2", 1.0),), Sampling(8)))
    assert arena.reused_tokens - before < reused / 2


@pytest.mark.models
async def test_an_adapter_that_went_bad_on_disk_fails_its_requests_alone(
    sure_dir: Path, folders: dict[str, Path], tmp_path: Path
) -> None:
    mine = {n: Path(shutil.copytree(f, tmp_path / n)) for n, f in list(folders.items())[:3]}
    opened = local(sure_dir, mine, resident=1)
    (mine["a2"] / WEIGHTS_FILE).write_bytes(b"damaged")
    good = Generation("g", (("user", "Hi"),), (("a1", 1.0),), Sampling(5))
    bad = Generation("b", (("user", "Hi"),), (("a2", 1.0),), Sampling(5))
    found = await asyncio.gather(
        *(collect(opened, one) for one in (good, bad, good)), return_exceptions=True
    )
    opened.engine.stop()
    assert isinstance(found[1], ExpertError) and "is damaged" in str(found[1])
    assert found[0] == found[2] and isinstance(found[0], str)


@pytest.mark.models
async def test_a_mixture_of_more_adapters_than_may_be_resident_is_refused(
    narrow: LocalExperts,
) -> None:
    experts = tuple((f"a{n}", 0.25) for n in range(RESIDENT + 1))
    with pytest.raises(ExpertError, match="mixes 4 adapters; 3 may be resident"):
        await collect(
            narrow, Generation("m", (("user", "Hi"),), experts, Sampling(5), LocalMode.MIXTURE)
        )


@pytest.mark.models
async def test_a_request_past_its_deadline_stops_and_says_so(roomy: LocalExperts) -> None:
    long = Generation("l", (("user", "Hi"),), (("plain", 1.0),), Sampling(200), deadline_s=0.05)
    with pytest.raises(Late, match="deadline"):
        await collect(roomy, long)
    assert await collect(
        roomy, Generation("k", long.messages, long.experts, Sampling(3), deadline_s=60)
    )
