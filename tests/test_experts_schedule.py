"""Who goes next: priorities, fair shares, and what a step may hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from experts.arena import RowCache
from experts.job import Feed, Found, Job, Row, Terms
from experts.schedule import FairShare, plan_step


class Reading(Job):
    """A job that wants its tokens read and nothing else."""

    @property
    def longest(self) -> int:
        return len(self.tokens)

    def feeds(self) -> list[Feed]:
        return [Feed(row, len(self.tokens), (len(self.tokens) - 1,)) for row in self.rows]

    def take(self, found: Sequence[Found]) -> None:
        self.done = True


def job(tokens: int, done: int = 0, rows: int = 1, **terms: object) -> Reading:
    caches = [RowCache(0, tokens, done) for _ in range(rows)]
    made = Reading("", range(tokens), [Row({}, 1.0, c) for c in caches], lambda _event: None)
    made.terms = Terms(**terms)  # type: ignore[arg-type]
    return made


def counts(slices: Sequence[object]) -> list[int]:
    return [part.count for part in slices]  # type: ignore[attr-defined]


def test_answers_go_first_and_a_prompt_gets_what_is_left() -> None:
    running = [job(9, done=8) for _ in range(3)]
    plan = plan_step([job(500), *running], alone=256, beside=40)
    assert counts(plan) == [1, 1, 1, 40]
    assert [part.positions for part in plan] == [[8], [8], [8], []]


def test_a_prompt_alone_may_use_the_whole_step() -> None:
    assert counts(plan_step([job(500)], alone=256, beside=40)) == [256]
    plan = plan_step([job(500, done=256)], alone=256, beside=40)
    assert counts(plan) == [244] and plan[0].positions == [499]


def test_a_short_prompt_overtakes_a_long_one() -> None:
    assert counts(plan_step([job(500), job(20)], alone=100, beside=40)) == [20, 80]


def test_a_larger_priority_gets_the_budget_first() -> None:
    plan = plan_step([job(30), job(200, priority=1)], alone=100, beside=40)
    assert counts(plan) == [100]
    assert plan[0].job.terms.priority == 1


def test_no_running_answer_is_ever_left_out() -> None:
    running = [job(9, done=8, rows=4) for _ in range(20)]
    assert counts(plan_step(running, alone=16, beside=4)) == [1] * 80


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
