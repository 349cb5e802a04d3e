"""The way of one request, from an accepted task to its recorded answer. Read `Pipeline.answer`."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, replace

from experts.generation import (
    Busy,
    Chunk,
    ExpertError,
    FinishReason,
    Generation,
    Late,
    PromptTooLong,
    TokenLogprob,
    Usage,
)
from orchestrator.citing import Marker
from orchestrator.combination import Combiner, Outcome, Team
from orchestrator.config import Config
from orchestrator.deadline import too_late, within
from orchestrator.errors import ContextTooLong, ExpertUnavailable, InvalidRequest, Overloaded
from orchestrator.grounding import ground
from orchestrator.librarian import Librarian
from orchestrator.ports import RetrieverPort, RouterPort
from orchestrator.recorder import Recorder
from orchestrator.report import describe, report, tokens
from orchestrator.request import Weighting
from orchestrator.surroundings import Surroundings
from orchestrator.task import Task
from orchestrator.telemetry import Carrier, Telemetry, carrier, failing
from orchestrator.timings import Timings
from orchestrator.wire import RoutingReport
from retrieval.attribution import Citation
from retrieval.embeddings import Embeddings
from retrieval.errors import RetrievalError
from retrieval.finding import Finding
from retrieval.passage import Passage
from router.decision import Decision
from router.features import ConversationError
from router.overrides import OverrideError, Overrides
from router.situation import Situation

logger = logging.getLogger(__name__)

_PROBE_SECONDS = 5.0


@dataclass(frozen=True)
class Delta:
    """A piece of the answer, marks included."""

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True)
class Finish:
    """The end of the answer."""

    reason: FinishReason
    usage: Usage
    citations: tuple[Citation, ...]
    routing: RoutingReport


class Pipeline:
    """Router, retriever and experts, joined into one answer."""

    def __init__(
        self,
        config: Config,
        router: RouterPort,
        retriever: RetrieverPort,
        combiner: Combiner,
        telemetry: Telemetry,
        recorder: Recorder | None = None,
    ) -> None:
        self._config, self._router, self._retriever = config, router, retriever
        self._combiner, self._telemetry, self._recorder = combiner, telemetry, recorder
        self._surroundings = Surroundings(config, combiner.loads)
        self._librarian = Librarian(config, retriever)

    @property
    def retriever(self) -> RetrieverPort:
        """The Retriever, for what is asked of it alone."""
        return self._retriever

    async def answer(self, task: Task, trace: Carrier) -> AsyncGenerator[Delta | Finish, None]:
        """Stream the answer to a task: deltas, then one finish.

        Raises:
            CollegiumError: of the kind that the caller should see.
        """
        timings = Timings(task.started)
        decision, findings = await self._decide(task, timings, trace, "chat")
        self._surroundings.remember(task, decision)
        team = self._team(task, decision)
        passages = await self._retrieve(task, decision, findings, timings, trace)
        request = self._ground(task, team, passages)
        outcome = Outcome(team.mode)
        marker = Marker(passages, self._retriever)
        combined = self._combine(request, team, passages, outcome, trace)
        last = Chunk("")
        async with aclosing(combined) as chunks:
            async for chunk in chunks:
                timings.mark("first_token")
                last = chunk
                text = await marker.feed(chunk.text, final=chunk.finish_reason is not None)
                if text or chunk.logprobs:
                    yield Delta(text, chunk.logprobs)
        timings.mark("total")
        if self._recorder is not None:
            self._recorder.end(task, stood_in=outcome.fallback)
        routing = report(task, decision, team, outcome, passages, timings.marks)
        yield _finish(last, marker.citations, routing)

    async def route(self, task: Task, trace: Carrier) -> RoutingReport:
        """The decision on a task without an answer."""
        timings = Timings(task.started)
        decision, _ = await self._decide(task, timings, trace, "route")
        team = self._team(task, decision)
        outcome = Outcome(team.mode, spoke=team.experts)
        found = report(task, decision, team, outcome, (), timings.marks)
        return found.model_copy(update={"grounding": None})

    async def embeddings(self, texts: Sequence[str], trace: Carrier) -> Embeddings:
        """Sentence vectors, with the number of tokens that they were made of.

        Raises:
            CollegiumError: of the kind that the caller should see.
        """
        with _for_caller():
            return await self._retriever.embeddings(texts, trace)

    async def faults(self) -> list[str]:
        """What cannot answer now: empty when router, retriever and generalist do."""
        probes = {
            "router": self._router.route((("user", "ready?"),), Overrides(), ()),
            "retriever": self._retriever.embed(["ready?"]),
            "generalist": self._combiner.health(),
        }
        found = await asyncio.gather(
            *(asyncio.wait_for(probe, _PROBE_SECONDS) for probe in probes.values()),
            return_exceptions=True,
        )
        return [
            f"{name}: {type(result).__name__}: {result}"
            for name, result in zip(probes, found, strict=True)
            if isinstance(result, BaseException)
        ]

    async def _decide(
        self, task: Task, timings: Timings, trace: Carrier, kind: str
    ) -> tuple[Decision, list[Finding] | None]:
        """The decision, and what was found where that had a say in it."""
        decision, situation = await self._route(task, timings, trace)
        findings = None
        if self._librarian.weighs(task, decision):
            with self._telemetry.span("collegium.weigh", trace) as span:
                names = self._librarian.shelves(task, self._librarian.candidates(task))
                try:
                    findings = await self._search(task, decision, names, carrier(span))
                except RetrievalError as error:
                    # Else a collection that cannot be read would stop requests for every expert.
                    logger.warning("no evidence for %s: %s", task.id, error)
                    span.record_exception(error)
                else:
                    decision = self._librarian.weigh(task, decision, findings, situation)
                span.set_attributes(describe(decision))
        if self._recorder is not None:
            self._recorder.note(task, decision, situation, kind)
        return decision, findings

    async def _route(
        self, task: Task, timings: Timings, trace: Carrier
    ) -> tuple[Decision, Situation]:
        with self._telemetry.span("collegium.route", trace) as span, _for_caller():
            try:
                situation = self._surroundings.situation(task)
                asked = self._router.route(
                    task.heard, task.overrides, carrier(span), situation, task.key
                )
                decision = await within(task, asked)
            except OverrideError as error:
                raise InvalidRequest(str(error), param=f"routing.{error.param}") from error
            except ConversationError as error:
                raise InvalidRequest(str(error), param="messages") from error
            span.set_attributes(describe(decision))
        timings.mark("route")
        return decision, situation

    def _team(self, task: Task, decision: Decision) -> Team:
        team = self._combiner.team(decision.weights(), task.mode, forced=task.forced)
        generalist = self._config.generalist
        affords = self._surroundings.affords(task, generalist)
        return replace(team, standby=task.principal.may_ask(generalist) and affords)

    async def _retrieve(
        self,
        task: Task,
        decision: Decision,
        findings: list[Finding] | None,
        timings: Timings,
        trace: Carrier,
    ) -> list[Passage]:
        names = self._librarian.shelves(task, decision.chosen)
        if findings is None:
            findings = await self._search(task, decision, names, trace)
        passages = self._librarian.pick(task, findings, names)
        timings.mark("retrieve")
        return passages

    async def _search(
        self, task: Task, decision: Decision, names: Sequence[str], trace: Carrier
    ) -> list[Finding]:
        if not names:
            return []
        with (
            self._telemetry.span(
                "collegium.retrieve", trace, collegium__collections=list(names)
            ) as span,
            _for_caller(),
        ):
            asked = self._librarian.search(task, decision, names, carrier(span))
            findings = await within(task, asked)
            close = self._librarian.pick(task, findings, names, required=False)
            span.set_attribute("collegium.passages", [p.passage_id for p in close])
            span.set_attribute("collegium.sources", [p.sha256 for p in close])
        return findings

    def _ground(self, task: Task, team: Team, passages: Sequence[Passage]) -> Generation:
        longest = self._config.retrieval.passage_characters
        return Generation(
            id=task.id,
            messages=ground(task.messages, passages, longest),
            experts=team.experts,
            sampling=task.sampling,
            posterior=task.weighting is Weighting.POSTERIOR,
            priority=task.priority,
            deadline_s=None if task.deadline is None else task.deadline - time.monotonic(),
            principal=task.principal.tenant,
        )

    async def _combine(
        self,
        request: Generation,
        team: Team,
        passages: Sequence[Passage],
        outcome: Outcome,
        trace: Carrier,
    ) -> AsyncGenerator[Chunk, None]:
        span = self._telemetry.start(
            "collegium.combine",
            trace,
            collegium__mode=str(team.mode),
            collegium__lead=team.lead,
            gen_ai__request__max_tokens=request.sampling.max_tokens,
            gen_ai__request__temperature=request.sampling.temperature,
        )
        traced = replace(request, trace=carrier(span))
        texts = [p.text for p in passages]
        combined = self._combiner.stream(traced, team, texts, outcome)
        try:
            with failing(span), _for_caller():
                async with aclosing(combined) as chunks:
                    async for chunk in chunks:
                        if chunk.usage is not None:
                            span.set_attributes(tokens(chunk.usage))
                        yield chunk
        finally:
            span.set_attribute("collegium.fallback", outcome.fallback)
            span.end()


@contextmanager
def _for_caller() -> Iterator[None]:
    """Turn what deployments raise into what the caller should see."""
    try:
        yield
    except PromptTooLong as error:
        raise ContextTooLong(f"`messages`: {error}.", param="messages") from error
    except Busy as error:
        raise Overloaded(str(error), retry_after=2.0) from error
    except Late as error:
        raise too_late() from error
    except ExpertError as error:
        raise ExpertUnavailable(str(error), retry_after=2.0) from error


def _finish(last: Chunk, citations: tuple[Citation, ...], routing: RoutingReport) -> Finish:
    if last.finish_reason is None or last.usage is None:
        raise ExpertUnavailable("the answer broke off before its end", retry_after=1.0)
    return Finish(last.finish_reason, last.usage, citations, routing)
