"""What a step holds, and what is left to the passes beside it."""

from __future__ import annotations

from collections.abc import Sequence

from reading import Reading, job

from experts.arena import RowCache
from experts.job import Feed, Row
from experts.plan import CHEAP, QUICK, Slice, plan_pass, plan_step


def answer(length: int = 9, rows: int = 1) -> Reading:
    return job(length, done=length - 1, rows=rows, prompt=length - 2)


def counts(plan: Sequence[Slice]) -> list[int]:
    return [part.count for part in plan]


def test_answers_are_in_every_step_and_a_long_prompt_in_none() -> None:
    plan = plan_step([job(500), *(answer() for _ in range(3))], (), beside=16)
    assert counts(plan) == [1, 1, 1]
    assert [part.positions for part in plan] == [(8,)] * 3
    assert [part.tokens for part in plan] == [[8]] * 3


def test_short_prompts_ride_along_while_there_is_room() -> None:
    asked = [job(10), job(7), answer(), job(6)]
    assert sorted(counts(plan_step(asked, (), beside=16))) == [1, 6, 7]
    assert sorted(counts(plan_step(asked, (), beside=100))) == [1, 6, 7, 10]


def test_a_short_prompt_with_nobody_to_delay_runs_at_once() -> None:
    assert counts(plan_step([job(500), job(QUICK)], (), beside=16)) == [QUICK]
    assert counts(plan_step([job(QUICK), answer()], (), beside=16)) == [1]


def test_a_chunk_of_drafts_goes_with_the_answers() -> None:
    drafts = job(30, done=21, rows=3, prompt=12)
    assert counts(plan_step([drafts, answer()], (), beside=1)) == [1, 9, 9, 9]


class Guessing(Reading):
    """An answer with tokens behind its last certain one that are only guesses."""

    def feeds(self) -> list[Feed]:
        return [Feed(self.rows[0], len(self.tokens), range(8, len(self.tokens)), spare=5)]


def guessing() -> Guessing:
    made = Guessing("", range(14), [Row({}, 1.0, RowCache(0, 14, 8))], lambda _event: None)
    made.prompt = 4
    return made


def test_guesses_run_only_while_a_step_is_cheap() -> None:
    assert counts(plan_step([guessing()], (), beside=16)) == [6]
    assert counts(plan_step([guessing(), guessing()], (), beside=16)) == [6, 2]
    assert sum(counts(plan_step([guessing() for _ in range(5)], (), beside=16))) == CHEAP
    assert counts(plan_step([guessing(), *(answer() for _ in range(9))], (), 16)) == [1] * 10
    (part,) = plan_step([guessing(), *(answer() for _ in range(5))], (), 16)[-1:]
    assert part.count == 3 and part.positions == (8, 9, 10)


def test_no_running_answer_is_ever_left_out() -> None:
    assert counts(plan_step([answer(rows=4) for _ in range(20)], (), beside=4)) == [1] * 80


def test_rows_that_a_pass_works_on_are_left_alone() -> None:
    busy, free = job(40), job(50)
    assert [part.job for part in plan_step([busy, free], set(busy.rows), 16)] == [free]
    assert [part.job for part in plan_pass([busy, free], set(busy.rows), 256)] == [free]


def test_a_pass_takes_the_shortest_prompt_and_those_that_do_not_delay_it() -> None:
    short, other, long = job(40), job(20), job(2000)
    plan = plan_pass([long, short, other], (), most=256)
    assert [(part.job, part.count) for part in plan] == [(other, 20), (short, 40)]


def test_a_long_prompt_takes_several_passes() -> None:
    assert counts(plan_pass([job(500)], (), most=256)) == [256]
    (last,) = plan_pass([job(500, done=256)], (), most=256)
    assert last.count == 244 and last.positions == (499,)
    assert last.tokens == list(range(256, 500))


def test_long_prompts_share_a_pass_up_to_its_size() -> None:
    assert counts(plan_pass([job(300), job(290)], (), most=256)) == [256]
    assert counts(plan_pass([job(100), job(100)], (), most=256)) == [100]


def test_rows_of_one_job_share_a_pass() -> None:
    assert counts(plan_pass([job(100, rows=4)], (), most=256)) == [100, 100]
    assert counts(plan_pass([job(30, rows=4), job(40)], (), most=256)) == [30, 30, 30, 30]


def test_a_pass_is_never_larger_than_it_may_be() -> None:
    assert sum(counts(plan_pass([job(20), job(22), job(300)], (), most=24))) <= 24
    assert sum(counts(plan_pass([job(20, rows=4), job(3)], (), most=24))) <= 24


def test_a_pass_holds_nothing_that_running_answers_need() -> None:
    (part,) = plan_pass([answer(), job(500), answer(rows=4)], (), most=256)
    assert part.count == 256


def test_nothing_runs_for_a_job_that_is_done() -> None:
    done = answer()
    done.done = True
    assert not plan_step([done], (), 16) and not plan_pass([done], (), 256)


def test_a_larger_priority_goes_first_whatever_its_length() -> None:
    urgent = job(200, priority=1)
    assert plan_pass([job(30), urgent], (), most=256)[0].job is urgent
    (part,) = plan_step([job(40), job(60, priority=1)], (), beside=16)
    assert part.job.terms.priority == 1
