"""When answers are the same, and what questions must share."""

from __future__ import annotations

import pytest

from orchestrator.cache_use import cache_use
from orchestrator.request import CacheUse
from orchestrator.sameness import facts, same_answer, sense

LONG = "The guarantee covers parts and labour for two years from the day on which you bought it."


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Press the red button. [1]", "press the RED button", True),
        (LONG, LONG.replace("from", "since"), True),
        (LONG, LONG.replace("two", "three") + " It ends then, and all is lost.", False),
        ("It takes 14 days.", "It takes 30 days.", False),
        ("You may copy it, if you keep the notice in all of the copies that you make.",
         "You may not copy it, if you keep the notice in all of the copies that you make.", False),
        ("Sie dürfen das Werk unter den Bedingungen dieser Lizenz überall verbreiten und zeigen.",
         "Sie dürfen das Werk unter den Bedingungen dieser Lizenz nicht verbreiten und zeigen.",
         False),
        ("", "", True),
        ("", "x", False),
    ],
)  # fmt: skip
def test_answers_are_the_same_but_for_a_few_words(one: str, other: str, same: bool) -> None:
    assert same_answer(one, other) is same
    assert same_answer(other, one) is same


def test_a_sense_passes_over_case_marks_and_punctuation() -> None:
    assert sense("Press the red button. [1]") == sense("press the RED button")
    assert sense("Press the red button.") != sense("Press the green button.")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What changed in 3.11?", "What changed in 3.12?"),
        ("May I copy it?", "May I not copy it?"),
        ("Can I do it?", "Can't I do it?"),
        ("Darf ich es?", "Darf ich es nicht?"),
    ],
)
def test_numbers_and_denials_keep_questions_apart(one: str, other: str) -> None:
    assert facts(one) != facts(other)
    assert facts(one) == facts(one.upper())


@pytest.mark.parametrize(
    ("asked", "header", "use"),
    [
        ("use", None, "use"),
        ("use", "max-age=0", "use"),
        ("use", "No-Cache", "refresh"),
        ("refresh", "no-store", "skip"),
        ("skip", "no-cache", "skip"),
        ("use", "no-cache, no-store", "skip"),
    ],
)
def test_the_stricter_of_body_and_header_holds(asked: str, header: str | None, use: str) -> None:
    assert cache_use(CacheUse(asked), header) is CacheUse(use)
