"""Queues as a gateway sees them: how long the next call waits, learnt from calls alone."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field

import pytest

from experts.echo import EchoExpert
from experts.generation import Chunk, ExpertError, Generation, Health, Sampling, Score, Scoring
from orchestrator.loads import Loads, Queue

REQUEST = Generation("r", (("user", "one two three"),), (("code", 1.0),), Sampling(8))


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Slow:
    """An expert whose first piece takes some seconds of the clock."""

    clock: Clock
    seconds: float
    fails: bool = False
    seen: list[dict[str, float]] = field(default_factory=list)
    loads: Loads | None = None

    async def generate(self, _request: Generation) -> AsyncGenerator[Chunk, None]:
        self.clock.now += self.seconds
        if self.loads is not None:
            self.seen.append(self.loads.waits())
        if self.fails:
            raise ExpertError("no")
        yield Chunk("a ")
        self.clock.now += 100.0
        yield Chunk("b")

    async def score(self, request: Scoring) -> Score:
        return Score(-1.0, 1, len(request.text))

    async def health(self) -> Health:
        return Health(("slow",), "none", 0, 0, 7)


def test_a_queue_that_is_worked_off_one_by_one_is_told_exactly() -> None:
    clock = Clock()
    queue = Queue(clock)
    for _ in range(5):
        queue.enter()
    for left in (4, 3, 2, 1, 0):
        clock.now += 2.0
        queue.begin()
        # Each of those left takes two seconds, one after the other.
        assert queue.seconds == pytest.approx(2.0 * left)


def test_a_deployment_that_answers_many_at_once_has_a_short_queue() -> None:
    clock = Clock()
    queue = Queue(clock)
    for _ in range(50):
        queue.enter()
        queue.enter()
        clock.now += 0.1
        queue.begin()
        queue.begin()
    queue.enter()
    assert 0.0 < queue.seconds < 0.1


def test_silence_makes_the_queue_longer() -> None:
    clock = Clock()
    queue = Queue(clock)
    queue.enter()
    clock.now += 1.0
    queue.begin()
    queue.enter()
    queue.enter()
    assert queue.seconds == pytest.approx(2.0)
    clock.now += 30.0
    assert queue.seconds == pytest.approx(60.0)


def test_an_idle_time_is_no_silence() -> None:
    clock = Clock()
    queue = Queue(clock)
    queue.enter()
    clock.now += 1.0
    queue.begin()
    clock.now += 500.0
    queue.enter()
    assert queue.seconds == pytest.approx(1.0)


async def test_a_call_waits_until_its_first_piece_and_no_longer() -> None:
    clock = Clock()
    loads = Loads([("code", "legal"), ("remote",)], clock)
    slow = Slow(clock, 3.0, loads=loads)
    port = loads.counted({"code": slow})["code"]
    async with aclosing(port.generate(REQUEST)) as chunks:
        assert (await anext(chunks)).text == "a "
        assert loads.waits() == {}
        assert (await anext(chunks)).text == "b"
    # Experts of one deployment share its queue.
    assert slow.seen == [{"code": 3.0, "legal": 3.0}]


@pytest.mark.parametrize("fails", [True, False])
async def test_a_call_that_fails_or_is_left_waits_no_more(fails: bool) -> None:
    clock = Clock()
    loads = Loads([("code",)], clock)
    port = loads.counted({"code": Slow(clock, 1.0, fails=fails)})["code"]
    chunks = port.generate(REQUEST)
    if fails:
        with pytest.raises(ExpertError):
            await anext(chunks)
    else:
        await anext(chunks)
        await chunks.aclose()
    clock.now += 10.0
    assert loads.waits() == {}


async def test_counted_ports_say_what_their_experts_say() -> None:
    plain = EchoExpert("code")
    counted = Loads([("code",)]).counted({"code": plain})["code"]
    pieces = [chunk async for chunk in counted.generate(REQUEST)]
    assert pieces == [chunk async for chunk in EchoExpert("code").generate(REQUEST)]
    assert await counted.health() == await plain.health()
    scoring = Scoring((("user", "x"),), "text", "code")
    assert await counted.score(scoring) == await plain.score(scoring)
