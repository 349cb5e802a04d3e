"""What is remembered of sessions: by tenant, for a while, and not without end."""

from __future__ import annotations

from orchestrator.sessions import Sessions


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def sessions(most: int = 3, seconds: float = 60.0) -> tuple[Sessions, Clock]:
    clock = Clock()
    return Sessions(most, seconds, clock), clock


def test_the_last_answer_of_a_session_is_remembered() -> None:
    kept, _ = sessions()
    kept.remember("a", "s", {"code": 1.0})
    kept.remember("a", "s", {"legal": 0.6, "code": 0.4})
    assert kept.last("a", "s") == {"legal": 0.6, "code": 0.4}


def test_sessions_of_two_tenants_never_meet() -> None:
    kept, _ = sessions()
    kept.remember("a", "s", {"code": 1.0})
    assert kept.last("b", "s") == {}
    assert kept.last("a", "t") == {}
    # Names that would be one if they were only joined.
    kept.remember("a", "b:c", {"code": 1.0})
    assert kept.last("a:b", "c") == {}


def test_a_session_is_forgotten_after_its_time_and_not_before() -> None:
    kept, clock = sessions(seconds=60.0)
    kept.remember("a", "s", {"code": 1.0})
    clock.now += 59.9
    assert kept.last("a", "s") == {"code": 1.0}
    clock.now += 0.2
    assert kept.last("a", "s") == {}


def test_an_answer_gives_a_session_its_whole_time_again() -> None:
    kept, clock = sessions(seconds=60.0)
    kept.remember("a", "s", {"code": 1.0})
    clock.now += 50.0
    kept.remember("a", "s", {"code": 1.0})
    clock.now += 50.0
    assert kept.last("a", "s") == {"code": 1.0}


def test_the_session_answered_longest_ago_makes_room() -> None:
    kept, _ = sessions(most=3)
    for name in ("one", "two", "three"):
        kept.remember("a", name, {"code": 1.0})
    kept.remember("a", "one", {"code": 1.0})
    kept.remember("a", "four", {"code": 1.0})
    held = {name for name in ("one", "two", "three", "four") if kept.last("a", name)}
    assert held == {"one", "three", "four"}


def test_a_memory_for_no_session_remembers_none() -> None:
    kept, _ = sessions(most=0)
    for name in ("one", "two"):
        kept.remember("a", name, {"code": 1.0})
        assert kept.last("a", name) == {}


def test_what_is_kept_does_not_follow_the_caller_s_changes() -> None:
    kept, _ = sessions()
    weights = {"code": 1.0}
    kept.remember("a", "s", weights)
    weights["code"] = 0.0
    assert kept.last("a", "s") == {"code": 1.0}
