"""The way of one request, from an accepted task to its recorded answer. Read `Pipeline.answer`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace

from experts.generation import Chunk
from orchestrator.answer_cache import AnswerCache, Inquiry
from orchestrator.answer_event import Delta, Finish
from orchestrator.combination import Combiner, Outcome, Team
from orchestrator.config import Config
from orchestrator.deadline import within
from orchestrator.errors import ExpertUnavailable, InvalidRequest
from orchestrator.librarian import Librarian
from orchestrator.ports import RetrieverPort, RouterPort
from orchestrator.recorder import Recorder
from orchestrator.report import describe, report
from orchestrator.retrieval_fault import told
from orchestrator.sources import Sources
from orchestrator.speaking import Speaker, Speech, for_caller
from orchestrator.surroundings import Surroundings
from orchestrator.task import Task
from orchestrator.telemetry import Carrier, Telemetry, carrier
from orchestrator.timings import Timings
from orchestrator.wire import RoutingReport
from retrieval.attribution import Citation
from retrieval.embeddings import Embeddings
from retrieval.errors import RetrievalError
from retrieval.finding import Finding
from router.decision import Decision
from router.features import ConversationError
from router.overrides import OverrideError, Overrides
from router.situation import Situation

logger = logging.getLogger(__name__)

_PROBE_SECONDS = 5.0


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
        cache: AnswerCache | None = None,
    ) -> None:
        self._config, self._router, self._retriever = config, router, retriever
        self._combiner, self._telemetry, self._recorder = combiner, telemetry, recorder
        self._surroundings = Surroundings(config, combiner.loads)
        self._librarian = Librarian(config, retriever)
        self._speaker = Speaker(config, combiner, retriever, telemetry)
        self.cache = cache

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
        before = await self._before(task, trace)
        decision, findings = await self._decide(task, timings, trace, "chat")
        self._surroundings.remember(task, decision)
        team = self._team(task, decision)
        events = self._write(task, decision, findings, team, timings, trace)
        if self.cache is not None:
            decided = report(task, decision, team, Outcome(team.mode), None, timings.marks)
            names = tuple(self._librarian.shelves(task, decision.chosen))
            held = before if findings is not None else None
            inquiry = Inquiry(task, decision, team, names, decided, timings, trace, held)
            events = self.cache.through(inquiry, events)
        async with aclosing(events):
            async for event in events:
                if isinstance(event, Finish) and event.given_again and self._recorder is not None:
                    self._recorder.given_again(task, event)
                yield event

    async def _before(self, task: Task, trace: Carrier) -> Mapping[str, str] | None:
        """What the collections hold before a search has its say in the decision."""
        if self.cache is None or not self._config.router.evidence:
            return None
        names = self._librarian.shelves(task, self._librarian.candidates(task))
        return await self.cache.versions(task, names, trace)

    async def _write(
        self,
        task: Task,
        decision: Decision,
        findings: list[Finding] | None,
        team: Team,
        timings: Timings,
        trace: Carrier,
    ) -> AsyncGenerator[Delta | Finish, None]:
        sources = await self._retrieve(task, team, decision, findings, timings, trace)
        speech = Speech(task, team, sources, Outcome(team.mode))
        last = Chunk("")
        async with aclosing(self._speaker.speak(speech, trace)) as chunks:
            async for chunk in chunks:
                timings.mark("first_token")
                last = chunk
                if chunk.text or chunk.logprobs:
                    yield Delta(chunk.text, chunk.logprobs)
        timings.mark("total")
        grounds = speech.grounds()
        if self._recorder is not None:
            self._recorder.end(task, grounds, stood_in=speech.outcome.fallback)
        routing = report(task, decision, team, speech.outcome, grounds, timings.marks)
        yield _finish(last, speech.citations, routing)

    async def route(self, task: Task, trace: Carrier) -> RoutingReport:
        """The decision on a task without an answer."""
        timings = Timings(task.started)
        decision, _ = await self._decide(task, timings, trace, "route")
        team = self._team(task, decision)
        outcome = Outcome(team.mode, spoke=team.experts)
        return report(task, decision, team, outcome, None, timings.marks)

    async def embeddings(self, texts: Sequence[str], trace: Carrier) -> Embeddings:
        """Sentence vectors, with the number of tokens that they were made of.

        Raises:
            CollegiumError: of the kind that the caller should see.
        """
        with for_caller():
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
        with self._telemetry.span("collegium.route", trace) as span, for_caller():
            try:
                situation = self._surroundings.situation(task)
                asked = task.heard, task.overrides, carrier(span), situation, task.key, task.store
                decision = await within(task, self._router.route(*asked))
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
        team: Team,
        decision: Decision,
        findings: list[Finding] | None,
        timings: Timings,
        trace: Carrier,
    ) -> Sources:
        names = self._librarian.shelves(task, decision.chosen)
        if findings is None:
            try:
                findings = await self._search(task, decision, names, trace)
            except RetrievalError as error:
                raise told(error, "routing.collections") from error
        passages = self._librarian.pick(task, findings, names)
        sources = self._speaker.sources(task, team, passages)
        timings.mark("retrieve")
        return sources

    async def _search(
        self, task: Task, decision: Decision, names: Sequence[str], trace: Carrier
    ) -> list[Finding]:
        if not names:
            return []
        with (
            self._telemetry.span(
                "collegium.retrieve", trace, collegium__collections=list(names)
            ) as span,
            for_caller(),
        ):
            asked = self._librarian.search(task, decision, names, carrier(span))
            findings = await within(task, asked)
            close = self._librarian.best(findings, names)
            span.set_attribute("collegium.passages", [p.passage_id for p in close])
            span.set_attribute("collegium.sources", [p.sha256 for p in close])
        return findings


def _finish(last: Chunk, citations: tuple[Citation, ...], routing: RoutingReport) -> Finish:
    if last.finish_reason is None or last.usage is None:
        raise ExpertUnavailable("the answer broke off before its end", retry_after=1.0)
    return Finish(last.finish_reason, last.usage, citations, routing)
