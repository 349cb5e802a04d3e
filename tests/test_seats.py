"""A mix that its engine could never run is refused: at the start, or when it is asked for."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from orchestrator.config import Config, ConfigError
from orchestrator.errors import InvalidRequest
from orchestrator.identity import EVERYONE
from orchestrator.request import ChatRequest
from orchestrator.seats import Seats
from orchestrator.task import Task, accept


def body(model: dict[str, int], pinned: int = 0, **sections: Any) -> dict[str, Any]:  # noqa: ANN401
    """A generalist, four adapters `a` to `d` over one base, and a remote expert."""
    adapted = {
        name: {"model": "base", "adapter": name, "pinned": number < pinned}
        for number, name in enumerate("abcd")
    }
    far = {"remote": {"base_url": "http://localhost:1/v1", "model": "m"}}
    return {
        "models": {"base": {"source": "x", **model}},
        "experts": {"general": {"model": "base"}, **adapted, "far": far},
        **sections,
    }


def ask(found: dict[str, Any], model: str = "auto", **routing: object) -> Task:
    messages = [{"role": "user", "content": "Hi"}]
    request = ChatRequest.model_validate({"model": model, "messages": messages, "routing": routing})
    return accept(request, EVERYONE, Config.check(found))


@pytest.mark.parametrize("mode", ["blend", "mixture"])
@pytest.mark.parametrize("adapters", [1, 2, 3])
@pytest.mark.parametrize("rows", [1, 2, 4])
@pytest.mark.parametrize("pinned", [0, 1, 2])
def test_there_is_a_shortage_just_where_some_choice_does_not_fit(
    mode: str, adapters: int, rows: int, pinned: int
) -> None:
    """Against every choice of experts, tried one by one."""
    names = ["general", "a", "b", "c", "d"]
    held = {*"abcd"[:pinned]}

    def fits(chosen: tuple[str, ...]) -> bool:
        needed = held | {name for name in chosen if name != "general"}
        taken = len(chosen) if mode == "mixture" and len(chosen) > 1 else 1
        return len(needed) <= pinned + adapters and taken <= rows

    seats = Seats(pinned, adapters, rows, len(names), 4 - pinned)
    for count in range(1, 7):
        choices = itertools.combinations(names, min(count, len(names)))
        found = seats.shortages(count, mode)
        assert bool(found) is not all(fits(chosen) for chosen in choices)
        if found:
            assert seats.shortages(found[0].room, mode) == []


@pytest.mark.parametrize(
    ("model", "pinned", "sections", "fault"),
    [
        (
            {"resident_adapters": 1},
            0,
            {},
            "`models.base.resident_adapters` does not suffice to mix as many experts as "
            "`router.top_k` allows, 2: set it to 2 or more, or `router.top_k` to 1.",
        ),
        (
            {"resident_adapters": 3},
            1,
            {"router": {"top_k": 3}, "combination": {"mode": "blend"}},
            "`models.base.resident_adapters` does not suffice to mix as many experts as "
            "`router.top_k` allows, 3: set it to 4 or more, or `router.top_k` to 2.",
        ),
        (
            {"max_rows": 4},
            0,
            {"router": {"top_k": 9}},
            "`models.base.max_rows` does not suffice to mix as many experts as `router.top_k` "
            "allows, 9: set it to 5 or more, or `router.top_k` to 4.",
        ),
    ],
)
def test_a_service_that_cannot_serve_its_own_top_k_does_not_start(
    model: dict[str, int], pinned: int, sections: dict[str, Any], fault: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        Config.check(body(model, pinned, **sections))
    assert str(caught.value).splitlines()[1:] == [f"  {fault}"]


@pytest.mark.parametrize(
    ("model", "sections"),
    [
        ({"resident_adapters": 1}, {"router": {"top_k": 1}}),
        ({"resident_adapters": 4, "max_rows": 5}, {"router": {"top_k": 50}}),
        ({"max_rows": 1}, {"combination": {"mode": "blend"}}),
    ],
)
def test_a_service_that_can_is_left_alone(model: dict[str, int], sections: dict[str, Any]) -> None:
    Config.check(body(model, **sections))


@pytest.mark.parametrize(
    ("routing", "key", "room", "needed"),
    [
        ({"top_k": 3}, "routing.top_k", 2, "resident_adapters` set to 3"),
        ({"top_k": 9}, "routing.top_k", 2, "resident_adapters` set to 4"),
        ({"top_k": 3, "mode": "blend"}, "routing.top_k", 2, "resident_adapters` set to 3"),
        (
            {"top_k": 3, "experts": ["a", "b", "d"]},
            "routing.top_k",
            2,
            "resident_adapters` set to 3",
        ),
        (
            {"weights": {"a": 1, "b": 1, "c": 1}},
            "routing.weights",
            2,
            "resident_adapters` set to 3",
        ),
        ({"model": "a+b+d"}, "model", 2, "resident_adapters` set to 3"),
    ],
)
def test_a_request_for_more_than_fits_is_told_what_is_allowed(
    routing: dict[str, Any], key: str, room: int, needed: str
) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        ask(body({"resident_adapters": 2}), **routing)
    assert (refusal.value.status, refusal.value.param) == (400, key)
    assert refusal.value.message.startswith(f"`{key}` asks for a mix of ")
    assert f"ask for {room} at most" in refusal.value.message
    assert f"`models.base.{needed} or more" in refusal.value.message


def test_pinned_adapters_take_room_unless_they_are_asked_for() -> None:
    found = body({"resident_adapters": 3}, pinned=2, router={"top_k": 1})
    assert ask(found, weights={"a": 1, "b": 1, "c": 1}).forced
    with pytest.raises(InvalidRequest, match="room for 1 in one answer"):
        ask(found, weights={"c": 1, "d": 1})


def test_a_mixture_where_the_service_blends_needs_a_row_for_each_expert() -> None:
    found = body({"max_rows": 1}, combination={"mode": "blend"})
    assert ask(found, top_k=2).mode is None
    with pytest.raises(InvalidRequest, match="`models.base.max_rows` set to 2") as refusal:
        ask(found, mode="mixture")
    assert refusal.value.param == "routing.mode"


@pytest.mark.parametrize(
    "routing",
    [
        {"top_k": 2},
        {"top_k": 4, "mode": "rank"},
        {"top_k": 4, "mode": "fuse"},
        {"top_k": 4, "mode": "single"},
        {"top_k": 4, "experts": ["a", "b", "general", "far"]},
        {"weights": {"a": 1, "b": 1, "c": 0, "general": 1}},
        {"weights": {"a": 1, "b": 1, "c": 1, "far": 1}},
        {"weights": {"a": 1, "b": 1, "c": 1}, "mode": "rank"},
    ],
)
def test_what_fits_or_is_not_mixed_is_accepted(routing: dict[str, Any]) -> None:
    assert ask(body({"resident_adapters": 2}), **routing).overrides is not None
