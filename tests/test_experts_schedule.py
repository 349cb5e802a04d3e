"""Who is let in next: priorities, fair shares and bounded waiting."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field

import pytest
from reading import job

from experts.job import Job
from experts.schedule import FairShare


def test_priority_then_share_then_arrival_decide() -> None:
    shares = FairShare()
    first, second = job(5, principal="a"), job(5, principal="b")
    urgent = job(5, principal="a", priority=3)
    for one in (first, second, urgent):
        shares.arrive(one)
    assert shares.order([first, second, urgent])[0] is urgent
    assert shares.order([first, second])[0] is first
    shares.count(first, 10)
    assert shares.order([first, second])[0] is second


def serve(shares: FairShare, waiting: list[Job], turns: int) -> Counter[str]:
    served: Counter[str] = Counter()
    for _ in range(turns):
        chosen = shares.order(waiting)[0]
        waiting.remove(chosen)
        shares.count(chosen, 10)
        served[chosen.terms.principal] += 1
    return served


def arrived(shares: FairShare, count: int, principal: str) -> list[Job]:
    jobs: list[Job] = [job(10, principal=principal) for _ in range(count)]
    for one in jobs:
        shares.arrive(one)
    return jobs


def test_two_principals_get_equal_tokens_whatever_they_ask_for() -> None:
    shares = FairShare()
    waiting = arrived(shares, 90, "many") + arrived(shares, 30, "few")
    assert serve(shares, waiting, 60) == {"many": 30, "few": 30}


def test_a_principal_that_was_away_saves_nothing_up() -> None:
    shares = FairShare()
    busy = arrived(shares, 40, "busy")
    shares.count(busy[0], 100_000)
    served = serve(shares, [*busy, *arrived(shares, 20, "fresh")], 20)
    assert served == {"busy": 10, "fresh": 10}
    shares.keep({"busy"})
    assert serve(shares, [*arrived(shares, 5, "fresh"), *busy[30:]], 6) == {"fresh": 3, "busy": 3}


@dataclass
class Clock:
    """Time that passes when it is told to."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def comes(shares: FairShare, priority: int = 0, principal: str = "") -> Job:
    one = job(5, priority=priority, principal=principal)
    shares.arrive(one)
    return one


@pytest.mark.parametrize("urgency", [1, 2, 7, 10])
def test_each_span_of_waiting_makes_up_for_one_level_of_priority(urgency: int) -> None:
    clock = Clock(100.0)
    shares = FairShare(3.0, clock)
    old = comes(shares)
    for passed, first in [(3.0 * urgency - 0.1, "urgent"), (3.0 * urgency, "old")]:
        clock.now = 100.0 + passed
        urgent = comes(shares, urgency)
        assert shares.order([old, urgent])[0] is (old if first == "old" else urgent)


def test_a_flood_that_has_waited_leaves_the_others_of_its_priority_their_share() -> None:
    clock = Clock()
    shares = FairShare(10.0, clock)
    waiting = arrived(shares, 60, "many")
    clock.now = 150.0
    waiting += arrived(shares, 20, "few")
    assert serve(shares, waiting, 40) == {"many": 20, "few": 20}
    clock.now = 200.0
    assert serve(shares, waiting, 40) == {"many": 40}


def test_behind_a_request_that_is_overdue_nobody_may_go() -> None:
    clock = Clock()
    shares = FairShare(10.0, clock)
    first = comes(shares, -10)
    clock.now = 1.0
    second = comes(shares)
    clock.now = 209.9
    urgent = comes(shares, 10)
    assert shares.order([first, second, urgent]) == [first, second, urgent]
    clock.now = 210.0
    assert shares.order([first, second, urgent]) == [first]
    assert shares.order([second, urgent]) == [second, urgent]


@dataclass
class Desk:
    """Two places; a wide job needs both, and is passed over while one is taken.

    It stands for an engine: `waited` and `ahead` are what each job that began had to wait, and how
    many that came before it were waiting still when it came.
    """

    shares: FairShare
    clock: Clock
    wide: set[Job] = field(default_factory=set)
    waiting: list[Job] = field(default_factory=list)
    busy: list[float] = field(default_factory=list)
    waited: dict[Job, float] = field(default_factory=dict)
    ahead: dict[Job, int] = field(default_factory=dict)

    def comes(self, one: Job, wide: bool) -> None:
        self.shares.arrive(one)
        self.ahead[one] = len(self.waiting)
        self.waiting.append(one)
        if wide:
            self.wide.add(one)

    def step(self, rng: random.Random) -> None:
        self.busy = [end for end in self.busy if end > self.clock.now]
        for one in self.shares.order(self.waiting):
            if len(self.busy) + (2 if one in self.wide else 1) <= 2:
                self.busy += [self.clock.now + rng.uniform(0.2, 1.0)] * (1 + (one in self.wide))
                self.waiting.remove(one)
                self.waited[one] = self.clock.now - one.terms.arrived
                self.shares.count(one, rng.randrange(1, 50))
        self.shares.keep({one.terms.principal for one in self.waiting})


LONGEST, STEP, AGEING = 1.0, 0.05, 0.5


def crowd(seed: int, shares: FairShare, clock: Clock) -> Desk:
    """More urgent work than two places can do, and among it some that everything passes by."""
    rng = random.Random(seed)
    desk = Desk(shares, clock)
    while clock.now < 60:
        clock.now += STEP
        for _ in range(rng.choice([0, 0, 0, 1, 1]) if len(desk.waiting) < 30 else 0):
            patient = rng.random() < 0.1
            priority = rng.randrange(-10, 1) if patient else rng.randrange(5, 11)
            # Now and then somebody new, who starts level with the least served.
            principal = rng.choice(["a", "b", f"new {clock.now}"])
            one = job(5, priority=priority, principal=principal)
            desk.comes(one, wide=patient and rng.random() < 0.5)
        desk.step(rng)
    return desk


def bound(desk: Desk, one: Job) -> float:
    """21 spans, the end of what ran, and of those before; a step more before each is noticed."""
    return 21 * AGEING + (LONGEST + STEP) * (desk.ahead[one] + 1)


@pytest.mark.parametrize("seed", range(8))
def test_every_request_is_let_in_within_the_bound(seed: int) -> None:
    clock = Clock()
    desk = crowd(seed, FairShare(AGEING, clock), clock)
    began = [one for one in desk.waited if one in desk.wide]
    assert len(began) >= 3 and len(desk.waited) > 50
    for one, waited in desk.waited.items():
        assert waited <= bound(desk, one)
    for one in desk.waiting:
        assert clock.now - one.terms.arrived <= bound(desk, one)


def test_without_ageing_the_same_crowd_leaves_some_waiting() -> None:
    clock = Clock()
    desk = crowd(0, FairShare(1e9, clock), clock)
    assert any(clock.now - one.terms.arrived > bound(desk, one) for one in desk.waiting)
