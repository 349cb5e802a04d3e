"""From weighted experts to one answer: who speaks, which draft wins, what a failure costs."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from in_process import configuration

from experts.echo import EchoExpert
from experts.generation import (
    Chunk,
    ExpertError,
    FinishReason,
    Generation,
    Health,
    LocalMode,
    PromptTooLong,
    Sampling,
    Score,
    Scoring,
    Usage,
)
from orchestrator.combination import Combiner, Outcome, Team
from orchestrator.config import Config
from orchestrator.drafts import Draft, collect, groundedness, rank
from orchestrator.errors import ExpertUnavailable, InvalidRequest
from orchestrator.ports import ExpertPort
from orchestrator.request import Mode

HALVES = {"code": 0.5, "legal": 0.5}
MIXED = {"code": 0.5, "mirror": 0.3, "legal": 0.2}
QUESTION = (("system", "Be brief."), ("user", "Why?"), ("assistant", "Because"))


@dataclass
class Says:
    """An expert with one fixed answer, `seconds` late, that counts how many speak at once."""

    text: str = ""
    seconds: float = 0.0
    speaking: list[int] = field(default_factory=lambda: [0, 0])
    requests: list[Generation] = field(default_factory=list)
    scores: Mapping[str, float] | None = None
    closed: bool = False
    finished: bool = True

    async def generate(self, request: Generation) -> AsyncGenerator[Chunk, None]:
        self.requests.append(request)
        self.speaking[0] += 1
        self.speaking[1] = max(self.speaking)
        try:
            await asyncio.sleep(self.seconds)
            yield Chunk(self.text)
            if self.finished:
                yield Chunk("", finish_reason=FinishReason.STOP, usage=Usage(10, 3))
        finally:
            self.speaking[0] -= 1
            self.closed = True

    async def score(self, request: Scoring) -> Score:
        if self.scores is None:
            raise ExpertError("the scorer is broken")
        return Score(self.scores[request.text], 1, len(request.text.encode()))

    async def health(self) -> Health:
        return Health((), "none", 0, 0, 0)


def config(tmp_path: Path, **combination: Any) -> Config:  # noqa: ANN401
    return configuration(tmp_path, tmp_path, combination=combination)


def combiner(tmp_path: Path, ports: Mapping[str, ExpertPort], **combination: Any) -> Combiner:  # noqa: ANN401
    return Combiner(config(tmp_path, **combination), ports)


def request(weights: Mapping[str, float]) -> Generation:
    return Generation("r", QUESTION, tuple(weights.items()), Sampling(16))


async def answer(
    combined: Combiner, team: Team, passages: tuple[str, ...] = ()
) -> tuple[str, Chunk, Outcome]:
    outcome = Outcome(team.mode)
    stream = combined.stream(request(dict(team.experts)), team, passages, outcome)
    chunks = [chunk async for chunk in stream]
    return "".join(chunk.text for chunk in chunks), chunks[-1], outcome


@pytest.mark.parametrize(
    ("weights", "mode", "forced", "experts", "found"),
    [
        ({"code": 1.0}, None, False, (("code", 1.0),), Mode.SINGLE),
        ({"code": 1.0}, Mode.FUSE, False, (("code", 1.0),), Mode.SINGLE),
        (HALVES, None, False, tuple(HALVES.items()), Mode.MIXTURE),
        (HALVES, Mode.BLEND, True, tuple(HALVES.items()), Mode.BLEND),
        (HALVES, Mode.RANK, False, tuple(HALVES.items()), Mode.RANK),
        ({"legal": 0.4, "code": 0.6}, Mode.SINGLE, False, (("code", 1.0),), Mode.SINGLE),
        (MIXED, None, False, tuple(MIXED.items()), Mode.RANK),
        (MIXED, Mode.FUSE, True, tuple(MIXED.items()), Mode.FUSE),
        (MIXED, Mode.MIXTURE, False, (("code", 5 / 7), ("legal", 2 / 7)), Mode.MIXTURE),
        ({"mirror": 0.6, "code": 0.4}, Mode.BLEND, False, (("mirror", 1.0),), Mode.SINGLE),
    ],
)
def test_a_team_follows_from_weights_mode_and_bases(
    tmp_path: Path,
    weights: dict[str, float],
    mode: Mode | None,
    forced: bool,
    experts: tuple[tuple[str, float], ...],
    found: Mode,
) -> None:
    team = combiner(tmp_path, {}).team(weights, mode, forced=forced)
    assert team.mode is found
    assert [name for name, _ in team.experts] == [name for name, _ in experts]
    assert [w for _, w in team.experts] == pytest.approx([w for _, w in experts])
    assert sum(w for _, w in team.experts) == pytest.approx(1)


@pytest.mark.parametrize("mode", [Mode.BLEND, Mode.MIXTURE])
def test_forced_experts_of_two_bases_cannot_be_mixed(tmp_path: Path, mode: Mode) -> None:
    with pytest.raises(InvalidRequest, match="mirror and code") as refusal:
        combiner(tmp_path, {}).team(MIXED, mode, forced=True)
    assert refusal.value.param == "routing.mode"


def test_the_configured_modes_hold_where_none_is_asked_for(tmp_path: Path) -> None:
    combined = combiner(tmp_path, {}, mode="blend", across="fuse")
    assert combined.team(HALVES, None, forced=False).mode is Mode.BLEND
    assert combined.team(MIXED, None, forced=False).mode is Mode.FUSE


async def test_a_mixture_is_one_call_to_the_lead(tmp_path: Path) -> None:
    ports = {name: EchoExpert(name) for name in ("general", "code", "legal")}
    combined = combiner(tmp_path, ports)
    team = combined.team({"legal": 0.7, "code": 0.3}, None, forced=False)
    text, _, _ = await answer(combined, team)
    assert text == "Because"
    (asked,) = ports["legal"].requests
    assert (asked.experts, asked.mode) == ((("legal", 0.7), ("code", 0.3)), LocalMode.MIXTURE)
    assert ports["code"].requests == ports["general"].requests == []


def draft(expert: str, weight: float, text: str) -> Draft:
    return Draft(expert, weight, text, (), Chunk("", finish_reason=FinishReason.STOP))


async def test_drafts_are_ranked_by_weight_bits_and_groundedness() -> None:
    drafts = [
        draft("a", 0.6, "alpha beta gamma delta"),
        draft("b", 0.3, "Patents are granted by every contributor"),
        draft("c", 0.1, "   "),
    ]
    nats = {drafts[0].text: -40.0, drafts[1].text: -30.0}

    async def score(text: str) -> Score:
        return Score(nats[text], 9, len(text.encode()))

    passages = ["Every contributor grants patents."]
    # Words of four letters or more of b: patents, granted, every, contributor; three are known.
    points = {
        "a": math.log(0.6) - 40 / math.log(2) / 22 + 0.0,
        "b": math.log(0.3) - 30 / math.log(2) / 40 + 3 / 4,
    }
    found = await rank(drafts, passages, score)
    assert [d.expert for d, _ in found] == ["b", "a", "c"]
    assert dict((d.expert, p) for d, p in found[:2]) == pytest.approx(points)
    assert found[2][1] == -math.inf
    unscored = await rank(drafts, passages, None)
    assert [p for _, p in unscored[:2]] == pytest.approx([math.log(0.3) + 0.75, math.log(0.6)])
    assert groundedness("anything at all", []) == 0.0


async def test_the_best_draft_is_the_answer(tmp_path: Path) -> None:
    general = Says(scores={"long and unlikely": -400.0, "short": -1.0})
    ports = {"general": general, "code": Says("long and unlikely"), "mirror": Says("short")}
    team = Team((("code", 0.6), ("mirror", 0.4)), Mode.RANK)
    text, last, outcome = await answer(combiner(tmp_path, ports), team)
    assert text == "short"
    assert last.usage == Usage(20, 6)
    assert outcome.method == "best of 2 drafts: mirror"
    assert outcome.spoke == (("code", 0.6), ("mirror", 0.4))


async def test_drafts_are_kept_where_the_generalist_cannot_score(tmp_path: Path) -> None:
    ports = {"general": Says(), "code": Says("one"), "mirror": Says("two")}
    team = Team((("code", 0.6), ("mirror", 0.4)), Mode.RANK)
    text, _, outcome = await answer(combiner(tmp_path, ports), team)
    assert text == "one"
    assert not outcome.fallback
    assert "general could not score (the scorer is broken)" in outcome.notes


@pytest.mark.parametrize(
    ("failing", "why"),
    [
        (EchoExpert("mirror", fails=True), "mirror: told to fail"),
        (Says("late", seconds=30), "no answer within 0.2 s"),
        (Says("half", finished=False), "mirror: the answer broke off"),
    ],
)
async def test_a_draft_that_does_not_come_is_dropped_and_named(
    tmp_path: Path, failing: ExpertPort, why: str
) -> None:
    general = Says(scores={"one": -1.0})
    ports: dict[str, ExpertPort] = {"general": general, "code": Says("one"), "mirror": failing}
    team = Team((("mirror", 0.8), ("code", 0.2)), Mode.RANK)
    text, _, outcome = await answer(combiner(tmp_path, ports, draft_timeout_s=0.2), team)
    assert text == "one"
    assert outcome.spoke == (("code", 1.0),)
    assert outcome.notes == [f"mirror was dropped ({why})"]
    assert not outcome.fallback
    assert not isinstance(failing, Says) or failing.closed


@pytest.mark.parametrize("mode", [Mode.RANK, Mode.FUSE])
async def test_without_any_draft_the_generalist_answers(tmp_path: Path, mode: Mode) -> None:
    broken = {name: EchoExpert(name, fails=True) for name in ("code", "mirror")}
    team = Team((("code", 0.5), ("mirror", 0.5)), mode)
    text, _, outcome = await answer(combiner(tmp_path, {"general": Says("me"), **broken}), team)
    assert text == "me"
    assert (outcome.fallback, outcome.mode, outcome.method) == (True, Mode.SINGLE, "")
    assert outcome.spoke == (("general", 1.0),)
    assert all(f"{name}: told to fail" in " ".join(outcome.notes) for name in broken)


@pytest.mark.parametrize("fanout", [1, 2, 4])
async def test_no_more_drafts_are_made_at_once_than_allowed(fanout: int) -> None:
    speaking = [0, 0]
    names = [f"e{n}" for n in range(6)]
    ports: dict[str, ExpertPort] = {n: Says(n, 0.02, speaking) for n in names}
    found = await collect(request(dict.fromkeys(names, 1 / 6)), ports, fanout=fanout, timeout=5)
    assert [d.expert for d in found.drafts] == names
    assert [d.text for d in found.drafts] == names
    assert speaking == [0, fanout]


async def test_the_generalist_writes_from_the_drafts(tmp_path: Path) -> None:
    general = Says("both")
    ports = {"general": general, "code": Says("one"), "mirror": Says("two")}
    team = Team((("code", 0.5), ("mirror", 0.5)), Mode.FUSE)
    text, last, outcome = await answer(combiner(tmp_path, ports), team)
    assert text == "both"
    assert last.usage == Usage(30, 9)
    assert outcome.method == "general wrote from 2 drafts"
    (asked,) = general.requests
    system, question, reply = asked.messages
    assert (system, reply) == (QUESTION[0], QUESTION[2])
    assert question[0] == "user"
    for part in ("Question: Why?", "Answer of code: one", "Answer of mirror: two"):
        assert part in question[1]
    assert (asked.experts, asked.mode) == ((("general", 1.0),), LocalMode.SINGLE)


async def test_drafts_that_do_not_fit_together_leave_the_best_of_them(tmp_path: Path) -> None:
    class Small(Says):
        async def generate(self, request: Generation) -> AsyncGenerator[Chunk, None]:
            raise PromptTooLong(2500, 2048)
            yield

    ports = {
        "general": Small(scores={"one": -1.0, "two": -9.0}),
        "code": Says("one"),
        "mirror": Says("two"),
    }
    team = Team((("code", 0.5), ("mirror", 0.5)), Mode.FUSE)
    text, last, outcome = await answer(combiner(tmp_path, ports), team)
    assert (text, last.usage) == ("one", Usage(20, 6))
    assert outcome.method == "best of 2 drafts: code"
    assert outcome.notes == ["the drafts do not fit the context together: the best one answers"]
    assert not outcome.fallback


async def test_an_expert_that_breaks_in_its_own_way_takes_no_other_along(tmp_path: Path) -> None:
    class Broken(Says):
        async def generate(self, request: Generation) -> AsyncGenerator[Chunk, None]:
            raise ZeroDivisionError("by zero")
            yield

    ports = {"general": Says(scores={"one": -1.0}), "code": Says("one"), "mirror": Broken()}
    team = Team((("mirror", 0.8), ("code", 0.2)), Mode.RANK)
    text, _, outcome = await answer(combiner(tmp_path, ports), team)
    assert text == "one"
    assert outcome.notes == ["mirror was dropped (ZeroDivisionError: by zero)"]


async def test_a_caller_without_the_generalist_gets_the_first_drafts_expert_as_writer(
    tmp_path: Path,
) -> None:
    general, code = Says("both"), Says("one")
    ports = {"general": general, "code": code, "mirror": Says("two")}
    team = Team((("code", 0.5), ("mirror", 0.5)), Mode.FUSE, standby=False)
    _, _, outcome = await answer(combiner(tmp_path, ports), team)
    assert outcome.method == "code wrote from 2 drafts"
    assert (len(code.requests), general.requests) == (2, [])


async def test_leaving_early_ends_every_draft(tmp_path: Path) -> None:
    slow = {"code": Says("one", 30), "mirror": Says("two", 30)}
    team = Team((("code", 0.5), ("mirror", 0.5)), Mode.RANK)
    combined = combiner(tmp_path, {"general": Says("me"), **slow})
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(answer(combined, team), 0.1)
    assert all(expert.closed for expert in slow.values())


async def test_a_broken_answer_is_not_begun_again_by_the_generalist(tmp_path: Path) -> None:
    class Breaks(EchoExpert):
        async def generate(self, request: Generation) -> AsyncGenerator[Chunk, None]:
            yield Chunk("half")
            raise ExpertError("code: died")

    general = EchoExpert("general")
    combined = combiner(tmp_path, {"general": general, "code": Breaks("code")})
    with pytest.raises(ExpertUnavailable, match="code failed: code: died"):
        await answer(combined, Team((("code", 1.0),), Mode.SINGLE))
    assert general.requests == []
