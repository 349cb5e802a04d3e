"""The cache of answers: between a decision and what would answer it."""

from __future__ import annotations

import asyncio
import logging
import random
import sqlite3
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from experts.generation import ExpertError
from orchestrator.answer_event import Delta, Finish
from orchestrator.answer_rows import Entry, Vector
from orchestrator.answer_store import open_answers
from orchestrator.cache_key import CacheKey, service_print
from orchestrator.combination import Team
from orchestrator.config import Config
from orchestrator.errands import ContentVersions
from orchestrator.hit_policy import Verdict
from orchestrator.kept_answer import KeptAnswer, Piece
from orchestrator.metrics import Metrics
from orchestrator.ports import RetrieverPort
from orchestrator.request import CacheUse
from orchestrator.sameness import same_answer, sense
from orchestrator.semantic_cache import SemanticCache
from orchestrator.task import Task
from orchestrator.telemetry import Carrier
from orchestrator.timings import Timings
from orchestrator.wire import RoutedCache, RoutingReport
from retrieval.errors import RetrievalError
from router.decision import Decision

logger = logging.getLogger(__name__)

_OF_DECISION = {
    *("decision_id", "router_version", "reason", "fallback", "experts", "candidates", "others"),
    *("evidence", "stage", "explored", "propensity", "cache", "timings_ms"),
}
_FAULTS = (sqlite3.Error, OSError, ValueError, KeyError, TypeError)

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Inquiry:
    """A decided task: who would answer it, and from which collections.

    `report` is what `x_routing` says of the decision alone. `before` are the collections' versions
    before they were searched, None where they have not been.
    """

    task: Task
    decision: Decision
    team: Team
    collections: tuple[str, ...]
    report: RoutingReport
    timings: Timings
    trace: Carrier
    before: Mapping[str, str] | None = None


@dataclass(frozen=True)
class _Visit:
    """What the cache knows of an inquiry; `found` is what it answers."""

    key: CacheKey
    versions: Mapping[str, str]
    kind: str = "miss"
    found: KeptAnswer | None = None
    vector: Vector | None = None
    verdict: Verdict | None = None


class AnswerCache:
    """Gives kept answers again, and keeps those that are whole.

    A fault of the file costs its hits and nothing else. `draw` gives numbers from 0 to 1.
    """

    def __init__(
        self,
        config: Config,
        retriever: RetrieverPort,
        metrics: Metrics,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._settings, self._retriever, self._metrics = config.cache, retriever, metrics
        self._service = service_print(config)
        self._store = open_answers(self._settings)
        self._semantic = SemanticCache(self._store, self._settings.semantic, draw)
        # One thread: the file and what is held in memory are not for several.
        self._thread = ThreadPoolExecutor(1, "answer-cache")
        self._told: set[str] = set()

    @classmethod
    def of(cls, config: Config, retriever: RetrieverPort, metrics: Metrics) -> AnswerCache | None:
        """The cache that the configuration asks for, if it does."""
        return cls(config, retriever, metrics) if config.cache.enabled else None

    async def through(
        self, inquiry: Inquiry, answered: AsyncGenerator[Delta | Finish, None]
    ) -> AsyncGenerator[Delta | Finish, None]:
        """The events of a kept answer, or those of `answered`, which is kept if it may be."""
        async with aclosing(answered):
            visit = await self._look(inquiry)
            if visit is not None:
                self._metrics.cache.lookups.labels(visit.kind).inc()
            if visit is None:
                events = answered
            elif visit.found is not None:
                events = self._again(inquiry, visit, visit.found)
            else:
                events = self._heard(inquiry, visit, answered)
            async with aclosing(events):
                async for event in events:
                    yield event

    async def clear(self, tenant: str | None) -> int:
        """Let go of a tenant's answers, of all without one; returns how many there were.

        Raises:
            sqlite3.Error, OSError: the file cannot be used.
        """
        loop = asyncio.get_running_loop()
        gone = await loop.run_in_executor(self._thread, self._store.clear, tenant)
        await loop.run_in_executor(self._thread, self._semantic.forget)
        await self._count()
        return gone

    async def _look(self, inquiry: Inquiry) -> _Visit | None:
        task = inquiry.task
        sampling = task.sampling
        steady = sampling.temperature == 0 or sampling.seed is not None or self._settings.sampled
        if task.cache is CacheUse.SKIP or not steady:
            return None
        before = inquiry.before
        versions = await self._versions(inquiry) if before is None else _of(inquiry, before)
        if versions is None:
            return None
        key = CacheKey.of(task, inquiry.decision, inquiry.team, versions, self._service)
        if task.cache is CacheUse.REFRESH:
            return _Visit(key, versions, vector=await self._vector(task, key))
        if self._settings.exact:
            tenant = task.principal.tenant
            found = await self._read(lambda: self._store.find(key.exact, tenant))
            if found is not None:
                return _Visit(key, versions, "exact", found)
        return await self._alike(task, _Visit(key, versions))

    async def _alike(self, task: Task, bare: _Visit) -> _Visit:
        vector, kin = await self._vector(task, bare.key), bare.key.kin
        tenant = task.principal.tenant
        if vector is None or kin is None:
            return bare
        verdict = await self._try(lambda: self._semantic.consider(kin, tenant, vector))
        miss = replace(bare, vector=vector, verdict=verdict)
        if verdict is None or not verdict.serves:
            return miss
        found = await self._fetch(verdict, tenant)
        return miss if found is None else replace(miss, kind="semantic", found=found)

    async def _again(
        self, inquiry: Inquiry, visit: _Visit, found: KeptAnswer
    ) -> AsyncGenerator[Delta | Finish, None]:
        inquiry.timings.mark("first_token")
        for text, logprobs in found.pieces:
            yield Delta(text, logprobs, visit.kind)
        inquiry.timings.mark("total")
        saved = found.usage.prompt_tokens + found.usage.completion_tokens
        self._metrics.cache.saved_tokens.inc(saved)
        told = {
            **inquiry.report.model_dump(include=_OF_DECISION),
            **found.told,
            "cache": _report(visit, saved),
            "timings_ms": dict(inquiry.timings.marks),
        }
        routing = RoutingReport.model_validate(told)
        yield Finish(found.reason, found.usage, found.citations, routing)

    async def _heard(
        self, inquiry: Inquiry, visit: _Visit, answered: AsyncGenerator[Delta | Finish, None]
    ) -> AsyncGenerator[Delta | Finish, None]:
        pieces: list[Piece] = []
        async for event in answered:
            if isinstance(event, Delta):
                pieces.append((event.text, event.logprobs))
                yield replace(event, cache=visit.kind)
            else:
                if await self._may_keep(inquiry, visit, event):
                    await self._keep(inquiry.task, visit, tuple(pieces), event)
                routing = event.routing.model_copy(update={"cache": _report(visit, 0)})
                yield replace(event, routing=routing)

    async def _may_keep(self, inquiry: Inquiry, visit: _Visit, finish: Finish) -> bool:
        if not inquiry.task.store or finish.routing.reason != inquiry.report.reason:
            return False
        # An answer from what was there before, or since, is none from what the key names.
        return await self._versions(inquiry) == visit.versions

    async def _keep(
        self, task: Task, visit: _Visit, pieces: tuple[Piece, ...], finish: Finish
    ) -> None:
        told = finish.routing.model_dump(mode="json", exclude=_OF_DECISION)
        answer = KeptAnswer(pieces, finish.reason, finish.usage, finish.citations, told)
        tenant, kin, verdict = task.principal.tenant, visit.key.kin, visit.verdict
        name, agreed = sense(answer.text), 0.5
        if verdict is not None and kin is not None:
            earlier = await self._fetch(verdict, tenant)
            if earlier is not None:
                same = same_answer(earlier.text, answer.text)
                name, agreed = verdict.likeness.sense if same else name, float(same)
                await self._try(lambda: self._semantic.learn(verdict, kin, tenant, same=same))
        entry = Entry(visit.key.exact, tenant, answer.dump())
        if visit.vector is not None:
            entry = replace(entry, kin=kin, vector=visit.vector, sense=name, agreed=agreed)
        await self._try(lambda: self._store.keep(entry))
        await self._count()

    async def _vector(self, task: Task, key: CacheKey) -> Vector | None:
        if key.kin is None or not self._settings.semantic.enabled:
            return None
        try:
            (vector,) = await self._retriever.embed([task.query])
        except ExpertError as error:
            # It costs a hit; whoever needs the Retriever for the answer is told.
            logger.warning("%s is compared with no kept answer: %s", task.id, error)
            return None
        return np.asarray(vector, np.float32)

    async def versions(
        self, task: Task, collections: Sequence[str], trace: Carrier
    ) -> Mapping[str, str] | None:
        """What these collections hold now, by digests; None where that cannot be told."""
        if not collections:
            return {}
        try:
            return await self._retriever.tend(ContentVersions(tuple(collections)), trace)
        except (RetrievalError, ExpertError) as error:
            # Whoever searches there is told, if the collection is needed at all.
            logger.warning("%s is not looked up: %s", task.id, error)
            return None

    async def _versions(self, inquiry: Inquiry) -> Mapping[str, str] | None:
        found = await self.versions(inquiry.task, inquiry.collections, inquiry.trace)
        return None if found is None else _of(inquiry, found)

    async def _fetch(self, verdict: Verdict, tenant: str) -> KeptAnswer | None:
        return await self._read(lambda: self._store.fetch(verdict.likeness.answer, tenant))

    async def _read(self, look: Callable[[], str | None]) -> KeptAnswer | None:
        def read() -> KeptAnswer | None:
            body = look()
            return None if body is None else KeptAnswer.load(body)

        return await self._try(read)

    async def _count(self) -> None:
        size = await self._try(self._store.size)
        if size is not None:
            self._metrics.cache.entries.set(size[0])
            self._metrics.cache.bytes.set(size[1])

    async def _try(self, work: Callable[[], _Result]) -> _Result | None:
        """What `work` gives in the cache's thread; None where the file fails."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except _FAULTS as error:
            self._metrics.cache.faults.inc()
            words = f"{type(error).__name__}: {error}"
            if words not in self._told:
                self._told.add(words)
                logger.error("the answer cache cannot be used: %s", words)
            return None


def _of(inquiry: Inquiry, found: Mapping[str, str]) -> Mapping[str, str]:
    # One that does not exist is in the key too: its 404 is no answer of the others.
    return {name: found.get(name, "") for name in inquiry.collections}


def _report(visit: _Visit, saved: int) -> RoutedCache:
    likeness = visit.verdict.likeness if visit.verdict else None
    return RoutedCache.model_validate(
        {
            "kind": visit.kind,
            "similarity": round(likeness.similarity, 4) if likeness else None,
            "risk": round(visit.verdict.risk, 4) if visit.verdict else None,
            "saved_tokens": saved,
        }
    )
