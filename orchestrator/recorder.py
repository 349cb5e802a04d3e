"""The recorder: keeps decisions and what is said about them, without holding up a request.

A gateway process has one. Requests put what happened into a queue; a thread writes it to the log
(`decision_log.py`), many at a time. Only feedback is waited for, until it is on disk.
"""

from __future__ import annotations

import asyncio
import time
import weakref
from concurrent.futures import Future
from pathlib import Path

from orchestrator.answer_event import Finish
from orchestrator.config import Config
from orchestrator.decision_log import Bounds, DecisionLog, log_file
from orchestrator.grounds import Grounds
from orchestrator.latency_class import latency_class
from orchestrator.metrics import Metrics
from orchestrator.scribe import Ended, Noted, Rated, Scribe
from orchestrator.task import Task
from router.decision import Decision
from router.features import FEATURE_VERSION
from router.logged_decision import (
    LoggedDecision,
    Opinion,
    Read,
    draw_of,
    hashed,
    logged_probabilities,
)
from router.provenance import LoggedSource, Provenance
from router.situation import Situation

_SECOND_LOOK_S = 0.3


class Recorder:
    """Keeps what the configuration's `feedback` asks for; may be shared by threads.

    `metrics` count what was kept and what was not: too many that wait, or a log that fails.
    """

    def __init__(self, config: Config, metrics: Metrics, path: Path | None = None) -> None:
        settings = config.feedback
        self._keep_text, self._encoder = settings.keep_text, config.encoder.source
        log = DecisionLog(path or log_file(settings), Bounds.of(settings))
        self._scribe = Scribe(log, metrics)
        # The thread knows nothing of this object; what waits is written before the process ends.
        self._end = weakref.finalize(self, self._scribe.close)

    @classmethod
    def of(cls, config: Config, metrics: Metrics) -> Recorder | None:
        """The recorder that the configuration asks for, if it does."""
        return cls(config, metrics) if config.feedback.enabled else None

    def note(self, task: Task, decision: Decision, situation: Situation, kind: str) -> None:
        """Keep a decision on a request of this kind (chat, route). Never waits."""
        at, text, encoder = time.time(), self._keep_text, self._encoder
        self._scribe.put(
            Noted(lambda: logged(task, decision, situation, kind, at, encoder, keep_text=text))
        )

    def end(self, task: Task, grounds: Grounds, *, stood_in: bool) -> None:
        """Note that the answer to a decision is whole, and what it stands on. Never waits.

        Of a request with `store: false` the sources are not kept: they tell what was asked.
        """
        latency = latency_class(time.monotonic() - task.started)
        provenance = grounds.provenance(with_sources=task.store)
        self._scribe.put(Ended(task.decision_id, latency, stood_in, provenance))

    def given_again(self, task: Task, finish: Finish) -> None:
        """Note that the answer to a decision was a kept one. Never waits."""
        latency = latency_class(time.monotonic() - task.started)
        routing, support = finish.routing, finish.routing.support
        cited = finish.citations if task.store else ()
        provenance = Provenance(
            grounding=routing.grounding or "",
            sentences=support.sentences if support else 0,
            supported=support.supported if support else 0,
            sources=tuple(
                dict.fromkeys(
                    LoggedSource(c.collection, c.passage_id, c.sha256, c.start, c.end)
                    for c in cited
                )
            ),
            cache=finish.cache or "",
        )
        # Where another stood in nothing is kept; of a decision `fallback` says that it abstained.
        self._scribe.put(Ended(task.decision_id, latency, False, provenance))

    async def rate(self, decision_id: str, tenant: str, opinion: Opinion) -> bool | None:
        """Keep an opinion; what this returns from is on disk.

        Returns whether it replaced one; None where the tenant has no such decision. Another gateway
        process may be about to write it, so a miss is looked at twice.

        Raises:
            LogError: the log cannot be written.
        """
        found = await self._ask(decision_id, tenant, opinion)
        if found is None:
            await asyncio.sleep(_SECOND_LOOK_S)
            found = await self._ask(decision_id, tenant, opinion)
        return found

    def close(self) -> None:
        """Write all that waits, and end."""
        self._end()

    async def _ask(self, decision_id: str, tenant: str, opinion: Opinion) -> bool | None:
        answer: Future[bool | None] = Future()
        self._scribe.put(Rated(decision_id, tenant, opinion, answer))
        return await asyncio.wrap_future(answer)


def logged(
    task: Task,
    decision: Decision,
    situation: Situation,
    kind: str,
    at: float,
    encoder: str,
    *,
    keep_text: bool,
) -> LoggedDecision:
    """A decision as it is kept; `at` is in seconds since 1970, `encoder` the encoder's source.

    Of a request with `store: false` neither text nor features are kept.
    """
    read = None
    if decision.features is not None and task.store:
        read = Read.of(
            decision.features,
            version=FEATURE_VERSION,
            encoder=encoder,
            dimensions=0 if decision.vector is None else len(decision.vector),
            said=len(task.said.strip()),
        )
    return LoggedDecision(
        id=task.decision_id,
        tenant=task.principal.tenant,
        kind=kind,
        at=at,
        key=hashed(task.key),
        router_version=decision.router_version,
        probabilities=logged_probabilities(decision),
        weights=decision.weights(),
        draw=draw_of(decision),
        abstained=decision.abstained,
        overrides=task.overrides,
        situation=situation,
        read=read,
        text=task.said if keep_text and task.store else None,
    )
