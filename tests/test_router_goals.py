from pathlib import Path

import pytest

from router.goals import Finding, Goal, GoalError, check_goals, read_goals

REPORT = {
    "accuracy": {"value": 0.97, "low": 0.96},
    "domains": {"code": {"accuracy": 0.99}, "legal": {"accuracy": 0.9}},
    "promise": {"tries": [{"kept": 0.99}, {"kept": 0.9}]},
    "regret": None,
    "name": "x",
    "flag": True,
}


def goals(tmp_path: Path, text: str) -> tuple[Goal, ...]:
    path = tmp_path / "goals.json"
    path.write_text(text, encoding="utf-8")
    return read_goals(path)


def test_goals_are_read_with_their_bounds(tmp_path: Path) -> None:
    found = goals(tmp_path, '{"a.b": ">= 0.5", "c": "<=1e-2"}')
    assert found == (Goal("a.b", 0.5, False), Goal("c", 0.01, True))
    assert [goal.bound for goal in found] == [">= 0.5", "<= 0.01"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "expected an object"),
        ("{}", "expected an object"),
        ('{"accuracy": 0.9}', "the bound of accuracy must be a string"),
        ('{"accuracy": "> 0.9"}', "the bound of accuracy"),
    ],
)
def test_an_unreadable_goal_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(GoalError, match=message) as caught:
        goals(tmp_path, text)
    assert "goals.json" in str(caught.value)


def test_a_bound_holds_at_its_very_limit() -> None:
    assert check_goals([Goal("accuracy.value", 0.97, False)], REPORT) == (
        Finding("accuracy.value", 0.97, ">= 0.97", True),
    )
    assert not check_goals([Goal("accuracy.value", 0.98, False)], REPORT)[0].reached
    assert not check_goals([Goal("accuracy.value", 0.9, True)], REPORT)[0].reached


def test_a_star_asks_every_part() -> None:
    found = check_goals([Goal("domains.*.accuracy", 0.92, False)], REPORT)
    assert [(one.metric, one.reached) for one in found] == [
        ("domains.code.accuracy", True),
        ("domains.legal.accuracy", False),
    ]
    found = check_goals([Goal("promise.tries.*.kept", 0.95, False)], REPORT)
    assert [one.reached for one in found] == [True, False]


def test_what_was_not_measured_is_not_reached() -> None:
    (found,) = check_goals([Goal("regret.over_best_single.value", 0.25, True)], REPORT)
    assert found == Finding("regret.over_best_single.value", None, "<= 0.25", False)


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ("acuracy", "no 'acuracy' in the report; there are accuracy, domains"),
        ("domains.math.accuracy", "no 'math' in domains; there are code, legal"),
        ("domains", "domains is no number; there are code, legal"),
        ("name", "name is no number"),
        ("flag", "flag is no number"),
        ("accuracy.value.x", "no 'x' in accuracy.value; it has no parts"),
    ],
)
def test_a_metric_that_is_not_there_is_named_with_what_is(metric: str, message: str) -> None:
    with pytest.raises(GoalError, match=message):
        check_goals([Goal(metric, 1.0, True)], REPORT)
