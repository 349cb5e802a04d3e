"""Combination: from weighted experts to one stream of text."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from experts.generation import (
    Busy,
    Chunk,
    ExpertError,
    Generation,
    Health,
    Late,
    LocalMode,
    PromptTooLong,
    Score,
    Scoring,
)
from orchestrator.config import Config
from orchestrator.drafts import Draft, collect, rank, total_usage
from orchestrator.errors import ExpertUnavailable, InvalidRequest
from orchestrator.loads import Loads
from orchestrator.placement import groups
from orchestrator.ports import ExpertPort
from orchestrator.request import Mode, Role

logger = logging.getLogger(__name__)

_TOKEN_LEVEL = (Mode.BLEND, Mode.MIXTURE)
_FUSE = (
    "Several experts answered the question below. Write one answer that keeps what is right in "
    "theirs.\n\nQuestion: {question}\n\n{drafts}"
)


@dataclass(frozen=True)
class Team:
    """The experts that will speak, by weight, and how they are combined.

    `standby` tells whether the generalist may answer in their place or write from their drafts: not
    for a caller who may not ask it.
    """

    experts: tuple[tuple[str, float], ...]
    mode: Mode
    note: str = ""
    standby: bool = True

    @property
    def lead(self) -> str:
        """The expert with the largest weight."""
        return self.experts[0][0]


@dataclass
class Outcome:
    """What became of a combination, for the report."""

    mode: Mode
    method: str = ""
    fallback: bool = False
    spoke: tuple[tuple[str, float], ...] = ()
    notes: list[str] = field(default_factory=list)


class Combiner:
    """Knows every expert's deployment and base model.

    `loads` tells how long its calls wait.

    Args:
        ports: expert name → its deployment (one object for several names when placed together).
    """

    def __init__(self, config: Config, ports: Mapping[str, ExpertPort]) -> None:
        self._config, self.loads = config, Loads(groups(config))
        self._ports = self.loads.counted(ports)
        self._bases = {name: expert.model for name, expert in config.experts.items()}

    def team(self, weights: Mapping[str, float], mode: Mode | None, *, forced: bool) -> Team:
        """Who speaks and how, from the decision's weights and the mode that was asked for.

        Raises:
            InvalidRequest: a token-level mode was asked for over forced experts that cannot mix.
        """
        ranked = tuple(sorted(weights.items(), key=lambda item: -item[1]))
        lead = ranked[0][0]
        same = tuple(item for item in ranked if self._mixes(lead, item[0]))
        if len(ranked) == 1 or mode is Mode.SINGLE:
            team = Team(((lead, 1.0),), Mode.SINGLE)
        elif mode in _TOKEN_LEVEL and len(same) < len(ranked):
            if forced:
                others = ", ".join(name for name, _ in ranked if (name, weights[name]) not in same)
                raise InvalidRequest(
                    f"`routing.mode` is {str(mode)!r}, but {others} and {lead} do not share a base "
                    "model; use 'rank' or 'fuse'.",
                    param="routing.mode",
                )
            left = _normalised(same)
            team = Team(left, mode if len(left) > 1 else Mode.SINGLE, "only one base can be mixed")
        elif len(same) < len(ranked):
            team = Team(ranked, mode or self._config.combination.across)
        else:
            team = Team(ranked, mode or self._config.combination.mode)
        return team

    async def health(self) -> Health:
        """The generalist's deployment, which must always be there."""
        return await self._ports[self._config.generalist].health()

    async def stream(
        self, request: Generation, team: Team, passages: Sequence[str], outcome: Outcome
    ) -> AsyncGenerator[Chunk, None]:
        """Stream the team's answer; the generalist stands in if it cannot begin.

        Raises:
            PromptTooLong, Busy, Late: the request itself cannot be taken.
            ExpertUnavailable: neither the team nor the generalist could answer, or the answer broke
                off after it had begun.
        """
        begun = False
        outcome.spoke = team.experts
        try:
            async with aclosing(self._attempt(request, team, passages, outcome)) as chunks:
                async for chunk in chunks:
                    begun = True
                    yield chunk
        except (PromptTooLong, Busy, Late):
            raise
        except ExpertError as error:
            logger.warning("%s failed: %s", team.lead, error)
            alone = team.experts == ((self._config.generalist, 1.0),)
            if begun or alone or not team.standby:
                raise ExpertUnavailable(f"{team.lead} failed: {error}", retry_after=5.0) from error
            outcome.notes.append(f"{team.lead} could not answer ({error})")
            async with aclosing(self._stand_in(request, outcome)) as chunks:
                async for chunk in chunks:
                    yield chunk

    async def _stand_in(self, request: Generation, outcome: Outcome) -> AsyncGenerator[Chunk, None]:
        name = self._config.generalist
        outcome.fallback, outcome.mode, outcome.spoke = True, Mode.SINGLE, ((name, 1.0),)
        outcome.method = ""
        alone = replace(request, experts=outcome.spoke, mode=LocalMode.SINGLE)
        try:
            async with aclosing(self._ports[name].generate(alone)) as chunks:
                async for chunk in chunks:
                    yield chunk
        except (PromptTooLong, Busy, Late):
            raise
        except ExpertError as error:
            raise ExpertUnavailable(
                f"neither the chosen experts nor {name} can answer now: {error}", retry_after=5.0
            ) from error

    async def _attempt(
        self, request: Generation, team: Team, passages: Sequence[str], outcome: Outcome
    ) -> AsyncGenerator[Chunk, None]:
        if team.mode is Mode.RANK:
            stream = self._ranked(request, team, passages, outcome)
        elif team.mode is Mode.FUSE:
            stream = self._fused(request, team, passages, outcome)
        else:
            mixed = replace(request, experts=team.experts, mode=LocalMode(team.mode))
            stream = self._ports[team.lead].generate(mixed)
        async with aclosing(stream):
            async for chunk in stream:
                outcome.method = chunk.method or outcome.method
                yield chunk

    async def _ranked(
        self, request: Generation, team: Team, passages: Sequence[str], outcome: Outcome
    ) -> AsyncGenerator[Chunk, None]:
        drafts = await self._drafts(request, team, outcome)
        yield await self._best(drafts, request, passages, outcome)

    async def _best(
        self,
        drafts: Sequence[Draft],
        request: Generation,
        passages: Sequence[str],
        outcome: Outcome,
    ) -> Chunk:
        try:
            (best, _), *_ = await rank(drafts, passages, self._scorer(request))
        except ExpertError as error:
            # The drafts are there: better ranked without the generalist than thrown away.
            outcome.notes.append(f"{self._config.generalist} could not score ({error})")
            (best, _), *_ = await rank(drafts, passages, None)
        outcome.method = f"best of {len(drafts)} drafts: {best.expert}"
        usage = total_usage([draft.last.usage for draft in drafts])
        return Chunk(best.text, best.logprobs, best.last.finish_reason, usage, outcome.method)

    async def _fused(
        self, request: Generation, team: Team, passages: Sequence[str], outcome: Outcome
    ) -> AsyncGenerator[Chunk, None]:
        drafts = await self._drafts(request, team, outcome)
        name = self._config.generalist if team.standby else drafts[0].expert
        outcome.method = f"{name} wrote from {len(drafts)} drafts"
        writing = replace(
            request,
            messages=_asking_to_fuse(request.messages, drafts),
            experts=((name, 1.0),),
            mode=LocalMode.SINGLE,
        )
        try:
            async with aclosing(self._ports[name].generate(writing)) as chunks:
                async for chunk in chunks:
                    if chunk.usage is not None:
                        spent = [chunk.usage, *(draft.last.usage for draft in drafts)]
                        chunk = replace(chunk, usage=total_usage(spent))
                    yield replace(chunk, method=outcome.method)
        except PromptTooLong:
            # It is the drafts that are long: nothing that the caller could shorten.
            outcome.notes.append("the drafts do not fit the context together: the best one answers")
            yield await self._best(drafts, request, passages, outcome)

    async def _drafts(self, request: Generation, team: Team, outcome: Outcome) -> tuple[Draft, ...]:
        settings = self._config.combination
        found = await collect(
            replace(request, experts=team.experts),
            self._ports,
            fanout=settings.max_fanout,
            timeout=settings.draft_timeout_s,
        )
        outcome.notes += [f"{name} was dropped ({why})" for name, why in found.failed]
        if not found.drafts:
            raise ExpertError("; ".join(f"{name}: {why}" for name, why in found.failed))
        outcome.spoke = _normalised([(d.expert, d.weight) for d in found.drafts])
        return found.drafts

    def _scorer(self, request: Generation) -> _Scorer | None:
        name = self._config.generalist
        local = self._bases[name] is not None
        return _Scorer(self._ports[name], name, request) if local else None

    def _mixes(self, one: str, other: str) -> bool:
        base = self._bases[one]
        return one == other or (base is not None and base == self._bases[other])


@dataclass(frozen=True)
class _Scorer:
    port: ExpertPort
    expert: str
    request: Generation

    async def __call__(self, text: str) -> Score:
        asked = Scoring(self.request.messages, text, self.expert, self.request.trace)
        return await self.port.score(asked)


def _asking_to_fuse(
    messages: Sequence[tuple[str, str]], drafts: Sequence[Draft]
) -> tuple[tuple[str, str], ...]:
    asking = list(messages)
    at = max(i for i, (role, _) in enumerate(messages) if role == Role.USER)
    shown = "\n\n".join(f"Answer of {d.expert}: {d.text}" for d in drafts)
    asking[at] = (str(Role.USER), _FUSE.format(question=messages[at][1], drafts=shown))
    return tuple(asking)


def _normalised(experts: Sequence[tuple[str, float]]) -> tuple[tuple[str, float], ...]:
    total = sum(weight for _, weight in experts)
    return tuple((name, weight / total) for name, weight in experts)
