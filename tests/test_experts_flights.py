"""Passes that rest between layers: the same values, in whatever order they run."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from reading import Reading
from transformers import AutoModelForCausalLM

from experts.arena import RowCache
from experts.flights import Flights
from experts.job import Row, Terms
from experts.runner import Runner, Work

pytestmark = pytest.mark.models


@pytest.fixture(scope="module")
def runner(tiny_dir: Path, device: str) -> Runner:
    return Runner(tiny_dir, device=device, dtype="float32", threads=1, cache_tokens=2048)


def reading(runner: Runner, tokens: list[int], **terms: int) -> Reading:
    made = Reading("", tokens, [Row({})], lambda _event: None)
    made.rows[0].cache = runner.arena.reserve(len(tokens)) or RowCache(0, 0)
    made.terms = Terms(**terms)
    return made


def text(length: int, seed: int) -> list[int]:
    dice = random.Random(seed)
    return [dice.randrange(10, 40_000) for _ in range(length)]


def land(flights: Flights, jobs: list[Reading]) -> list[Reading]:
    """Let everything land; returns the jobs in the order in which they were done."""
    order: list[Reading] = []
    while landed := flights.advance(jobs, 0.0):
        plan, found = landed
        for part, one in zip(plan, found, strict=True):
            part.job.take([one])
            if part.job.done:
                order.append(next(job for job in jobs if job is part.job))
    return order


def release(runner: Runner, jobs: list[Reading]) -> None:
    for job in jobs:
        runner.arena.release(job.rows[0].cache, (), [])
    runner.arena.clear()


def test_every_prompt_gets_the_logits_of_transformers(runner: Runner, tiny_dir: Path) -> None:
    jobs = [reading(runner, text(n, n)) for n in (200, 30, 90, 64, 65)]
    land(Flights(runner, most_tokens=48), jobs)
    model = AutoModelForCausalLM.from_pretrained(tiny_dir)
    for job in jobs:
        with torch.inference_mode():
            truth = model(torch.tensor([job.tokens])).logits[0, -1]
        assert job.logits is not None
        torch.testing.assert_close(job.logits.cpu(), truth, atol=2e-4, rtol=1e-4)
    release(runner, jobs)


def test_a_short_prompt_overtakes_a_long_one_in_the_middle_of_its_pass(runner: Runner) -> None:
    flights = Flights(runner, most_tokens=256)
    long, short = reading(runner, text(250, 1)), reading(runner, text(30, 2))
    assert flights.advance([long], 0.0) == ((), [])
    assert land(flights, [long, short]) == [short, long]
    release(runner, [long, short])


def test_a_long_prompt_gets_on_under_a_stream_of_short_ones(runner: Runner) -> None:
    flights = Flights(runner, most_tokens=256)
    long = reading(runner, text(250, 1))
    flights.advance([long], 0.0)
    done = 0
    while not long.done:
        short = reading(runner, text(20, done))
        landed = flights.advance([long, short], 0.0)
        while landed == ((), []):
            landed = flights.advance([long, short], 0.0)
        assert landed is not None
        for part, one in zip(*landed, strict=True):
            part.job.take([one])
        done += 1
        release(runner, [short] if short.done else [])
        flights.drop({short})
        assert done < 20
    release(runner, [long])


def test_a_prompt_of_several_passes_gets_on_under_a_stream_of_shorter_ones(runner: Runner) -> None:
    flights = Flights(runner, most_tokens=64)
    long, done = reading(runner, text(400, 1)), 0
    while not long.done:
        short = reading(runner, text(30, done))
        while not short.done and not long.done:
            landed = flights.advance([long, short], 0.0)
            assert landed is not None
            for part, one in zip(*landed, strict=True):
                part.job.take([one])
        flights.drop({short})
        release(runner, [short])
        done += 1
        assert done < 60
    release(runner, [long])


def test_a_row_that_is_rewound_in_flight_is_found_out(runner: Runner) -> None:
    flights = Flights(runner, most_tokens=256)
    job = reading(runner, text(100, 1))
    runner.run([Work(job.rows[0].cache, {}, job.tokens[:10], [])])
    flights.advance([job], 0.0)
    job.rows[0].cache.rewind(5)
    with pytest.raises(RuntimeError, match="fed or rewound"):
        land(flights, [job])
    release(runner, [job])


def test_a_more_urgent_prompt_is_not_overtaken(runner: Runner) -> None:
    flights = Flights(runner, most_tokens=256)
    long, short = reading(runner, text(250, 1), priority=3), reading(runner, text(30, 2))
    flights.advance([long], 0.0)
    assert land(flights, [long, short]) == [long, short]
    release(runner, [long, short])


def test_a_pass_that_is_dropped_writes_no_more(runner: Runner) -> None:
    """Its memory goes to another row at once: that row's logits must be those it has alone."""
    flights = Flights(runner, most_tokens=256)
    gone, beside = reading(runner, text(250, 1)), reading(runner, text(40, 2))
    assert flights.advance([gone], 0.0) == ((), [])
    flights.drop({gone})
    assert not flights.rows and gone.rows[0].cache.length == 0
    release(runner, [gone])
    heir = reading(runner, text(250, 3))
    assert heir.rows[0].cache.start == gone.rows[0].cache.start
    land(flights, [heir, beside])
    alone = runner.arena.reserve(250)
    assert alone is not None
    (truth,) = runner.run([Work(alone, {}, heir.tokens, [249])])
    assert heir.logits is not None
    torch.testing.assert_close(heir.logits, truth[0], atol=1e-4, rtol=1e-4)
    runner.arena.release(alone, (), [])
    release(runner, [heir, beside])
