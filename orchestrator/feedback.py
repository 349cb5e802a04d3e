"""Feedback: what a caller says about a decision, checked and kept."""

from __future__ import annotations

import time

from orchestrator.config import Config
from orchestrator.decision_log import LogError
from orchestrator.errors import InternalError, NotFound, PermissionDenied
from orchestrator.identity import Principal
from orchestrator.metrics import Metrics
from orchestrator.recorder import Recorder
from orchestrator.request import FeedbackRequest
from orchestrator.task import decision_id, model_names
from orchestrator.wire import Feedback
from router.logged_decision import Opinion


class FeedbackDesk:
    """Takes feedback for a gateway; without a recorder it says that nothing is kept here."""

    def __init__(self, config: Config, recorder: Recorder | None, metrics: Metrics) -> None:
        self._config, self._recorder, self._metrics = config, recorder, metrics

    async def take(self, body: FeedbackRequest, principal: Principal) -> Feedback:
        """Keep it, in place of what was said before; what this returns is on disk.

        Raises:
            NotFound: the caller has no such decision, there is no such expert, or nothing is kept.
            PermissionDenied: the expert is not open to the caller.
            InternalError: it could not be kept.
        """
        if self._recorder is None:
            raise NotFound(
                "This service keeps no decisions, so there is nothing to give feedback on "
                "(`feedback.enabled` is false in its configuration).",
                code="feedback_disabled",
            )
        self._check_expert(body.expert, principal)
        name = decision_id(body.decision_id)
        opinion = Opinion(body.value, body.expert, body.comment, time.time())
        try:
            replaced = await self._recorder.rate(name, principal.tenant, opinion)
        except LogError as error:
            raise InternalError("The feedback was not kept; the service's log says why.") from error
        if replaced is None:
            raise NotFound(
                f"`decision_id` is {body.decision_id!r}, which names no decision that is kept "
                "here: send the `x_routing.decision_id` or the `id` of an answer of this service.",
                param="decision_id",
                code="decision_not_found",
            )
        named = "yes" if body.expert else "no"
        self._metrics.feedback.labels(_sign(opinion.score), named).inc()
        return Feedback(
            decision_id=name,
            score=opinion.score,
            expert=opinion.expert,
            comment=opinion.comment,
            replaced=replaced,
        )

    def _check_expert(self, name: str | None, principal: Principal) -> None:
        if name is None:
            return
        if name not in self._config.experts:
            known = ", ".join(model_names(self._config, principal)[1:])
            raise NotFound(
                f"`expert` is {name!r}, which does not exist. Known: {known}.", param="expert"
            )
        if not principal.may_ask(name):
            raise PermissionDenied(f"The expert {name!r} is not open to this key.", param="expert")


def _sign(score: float | None) -> str:
    if score is None:
        return "none"
    return "positive" if score > 0 else "negative" if score < 0 else "neutral"
