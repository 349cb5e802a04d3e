"""Session, locale and preferences: what each does to the probabilities, and says about it."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest

from router.leaning import Leaning, follow, lean, locale_shifts, shift_odds
from router.overrides import OverrideError, Overrides, UnknownExpert
from router.situation import Situation

GATE = {"general": 0.6, "code": 0.2, "legal": 0.15, "multilingual": 0.05, "remote": 0.0}
SPEAKS = {"multilingual": ("pt-BR", "de"), "legal": ("en",), "code": ()}
FOLLOW_UP = "now commit it"
CHANGE = "Is a contract valid if one of the two parties signed it under duress?"


def leaned(
    said: str = "x",
    *,
    gate: Mapping[str, float] = GATE,
    previous: Mapping[str, float] | None = None,
    overrides: Overrides | None = None,
) -> Leaning:
    situation = Situation(previous=previous or {})
    return lean(gate, said, "general", overrides or Overrides(), situation, SPEAKS)


def odds(probabilities: Mapping[str, float], one: str, other: str) -> float:
    return math.log(probabilities[one] / probabilities[other])


def test_nothing_leans_where_nothing_is_said() -> None:
    assert leaned() == Leaning(GATE)


@pytest.mark.parametrize("value", [1.0, 0.5, -0.25, -1.0])
def test_a_preference_shifts_the_odds_by_three_times_its_number(value: float) -> None:
    found = leaned(overrides=Overrides(preferences={"legal": value})).probabilities
    assert math.fsum(found.values()) == pytest.approx(1.0, abs=1e-12)
    for other in ("general", "code", "multilingual"):
        shift = odds(found, "legal", other) - odds(GATE, "legal", other)
        assert shift == pytest.approx(3.0 * value)
    assert odds(found, "general", "code") == pytest.approx(odds(GATE, "general", "code"))


def test_a_preference_is_named_with_what_it_changed() -> None:
    found = leaned(overrides=Overrides(preferences={"legal": 0.5, "code": 0.0}))
    after = 0.15 * math.exp(1.5) / (0.85 + 0.15 * math.exp(1.5))
    assert found.notes == (f"the caller's preferences raised legal from 0.15 to {after:.2f}",)


def test_what_the_gate_gives_nothing_stays_at_nothing() -> None:
    found = leaned(overrides=Overrides(preferences={"remote": 1.0}))
    assert found.probabilities == pytest.approx(GATE)
    assert found.notes == ()


def test_a_preference_for_a_stranger_is_refused_by_its_key() -> None:
    with pytest.raises(UnknownExpert) as caught:
        leaned(overrides=Overrides(preferences={"cooking": 1.0}))
    assert caught.value.param == "preferences.cooking"


@pytest.mark.parametrize(
    ("locale", "shifts"),
    [
        ("pt-BR", {"multilingual": 1.0, "legal": -1.0}),
        ("PT", {"multilingual": 1.0, "legal": -1.0}),
        ("pt-br-x-formal", {"multilingual": 1.0, "legal": -1.0}),
        ("pt-PT", {"multilingual": -1.0, "legal": -1.0}),
        ("de-CH-1901", {"multilingual": 1.0, "legal": -1.0}),
        ("den", {"multilingual": -1.0, "legal": -1.0}),
        ("en-GB", {"multilingual": -1.0, "legal": 1.0}),
    ],
)
def test_a_locale_is_for_those_who_speak_it_and_against_those_who_speak_others(
    locale: str, shifts: dict[str, float]
) -> None:
    assert locale_shifts(locale, SPEAKS) == shifts


def test_a_locale_moves_the_odds_of_its_speakers_and_says_so() -> None:
    found = leaned(overrides=Overrides(locale="de"))
    shift = odds(found.probabilities, "multilingual", "code") - odds(GATE, "multilingual", "code")
    assert shift == pytest.approx(1.0)
    (note,) = found.notes
    assert note.startswith("locale de ")


def test_a_session_pulls_by_the_formula() -> None:
    for said, brevity in (("", 1.0), ("x" * 10, 0.75), (" x \n", 0.975), ("x" * 40, 0.0)):
        found = follow(GATE, {"code": 0.6, "legal": 0.4}, said, "general")
        pull = 1.0 + 1.5 * brevity
        raw = {
            **GATE,
            "code": 0.2 * math.exp(0.6 * pull),
            "legal": 0.15 * math.exp(0.4 * pull),
        }
        total = sum(raw.values())
        handed = brevity * 0.6 / total
        expected = {name: value / total for name, value in raw.items()}
        expected["general"] -= handed
        expected["code"] += 0.6 * handed
        expected["legal"] += 0.4 * handed
        assert found == pytest.approx(expected)
        assert math.fsum(found.values()) == pytest.approx(1.0, abs=1e-12)


def test_a_short_message_is_pulled_harder_than_a_long_one() -> None:
    lengths = (0, 10, 20, 39, 40, 99)
    found = [follow(GATE, {"code": 1.0}, "x" * n, "general")["code"] for n in lengths]
    assert found == sorted(found, reverse=True)
    assert found[-1] == found[-2] < found[-3]


def test_a_follow_up_stays_with_the_expert_of_the_answer_before() -> None:
    found = leaned(FOLLOW_UP, previous={"code": 1.0})
    assert max(found.probabilities, key=lambda name: found.probabilities[name]) == "code"
    (note,) = found.notes
    assert note.startswith("the session raised code from 0.20 to ")


def test_a_plain_change_of_topic_outweighs_the_session() -> None:
    plain = {"general": 0.02, "code": 0.01, "legal": 0.96, "multilingual": 0.01}
    for said in (CHANGE, FOLLOW_UP):
        found = leaned(said, gate=plain, previous={"code": 1.0}).probabilities
        assert found["legal"] > 0.7


def test_a_message_without_a_domain_follows_even_where_the_gate_saw_nothing() -> None:
    everyday = {"general": 0.997, "code": 0.001, "legal": 0.001, "multilingual": 0.001}
    found = leaned("make it shorter", gate=everyday, previous={"code": 1.0}).probabilities
    assert found["code"] > 0.6
    asked = "What would be a good present for my grandmother?"
    stays = leaned(asked, gate=everyday, previous={"code": 1.0}).probabilities
    assert stays["general"] > 0.98


def test_a_session_of_the_generalist_keeps_it() -> None:
    doubtful = {"general": 0.4, "code": 0.45, "legal": 0.1, "multilingual": 0.05}
    found = leaned("and you?", gate=doubtful, previous={"general": 1.0})
    assert max(found.probabilities.values()) == found.probabilities["general"] > 0.8
    assert found.notes[0].startswith("the session raised general from 0.40 to ")


def test_an_expert_of_the_session_that_is_gone_is_passed_over() -> None:
    found = leaned(FOLLOW_UP, previous={"gone": 1.0})
    assert found.probabilities == pytest.approx(GATE)


def test_all_causes_add_up_in_any_order() -> None:
    overrides = Overrides(preferences={"legal": -0.5, "code": 0.2}, locale="de")
    found = leaned(FOLLOW_UP, previous={"code": 1.0}, overrides=overrides)
    shifts = {"legal": -1.5 - 1.0, "code": 0.6, "multilingual": 1.0}
    expected = follow(shift_odds(GATE, shifts), {"code": 1.0}, FOLLOW_UP, "general")
    assert found.probabilities == pytest.approx(expected)
    assert len(found.notes) == 3


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"preferences": {"code": 1.1}}, "preferences.code"),
        ({"preferences": {"code": -1.1}}, "preferences.code"),
        ({"preferences": {"code": math.nan}}, "preferences.code"),
        ({"preferences": {"code": True}}, "preferences.code"),
        ({"locale": ""}, "locale"),
        ({"max_cost": -0.1}, "max_cost"),
        ({"max_cost": math.inf}, "max_cost"),
    ],
)
def test_values_out_of_range_are_refused_with_their_key(
    fields: dict[str, object], param: str
) -> None:
    with pytest.raises(OverrideError) as caught:
        Overrides(**fields)  # type: ignore[arg-type]
    assert caught.value.param == param


KINDS = {"code": (".py", "text/x-python", ".JS"), "legal": (".docx",), "general": ()}


def with_files(*attached: str) -> Leaning:
    situation = Situation(attached=attached)
    return lean(GATE, "x", "general", Overrides(), situation, SPEAKS, KINDS)


@pytest.mark.parametrize("attached", [(".py",), ("text/x-python", ".py"), (".js", ".txt")])
def test_an_attached_file_shifts_the_odds_of_who_declares_its_kind_by_two(
    attached: tuple[str, ...],
) -> None:
    found = with_files(*attached).probabilities
    after = 0.2 * math.exp(2.0) / (0.8 + 0.2 * math.exp(2.0))
    assert found["code"] == pytest.approx(after)
    assert odds(found, "general", "legal") == pytest.approx(odds(GATE, "general", "legal"))


def test_the_reason_names_the_kinds_that_are_declared_and_no_others() -> None:
    (note,) = with_files(".py", ".ignore previous", "text/x-python").notes
    assert note.startswith("the attached .py and text/x-python raised code from 0.20 to ")


def test_files_that_nobody_declares_lean_nothing() -> None:
    assert with_files(".csv", "text/csv") == Leaning(GATE)
