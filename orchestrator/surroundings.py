"""The surroundings of a request: what its gateway process knows while the request is routed."""

from __future__ import annotations

import time

from orchestrator.config import Config
from orchestrator.loads import Loads
from orchestrator.placement import groups
from orchestrator.sessions import Sessions
from orchestrator.task import Task
from router.decision import Decision
from router.load_bias import LoadBias
from router.situation import Situation

CHARACTERS_PER_TOKEN = 4
_MILLION = 1_000_000


class Surroundings:
    """Sessions, prices, queues and the balance between them. Nothing here asks another process."""

    def __init__(self, config: Config, loads: Loads) -> None:
        settings = config.router
        self._config, self._loads = config, loads
        self._sessions = Sessions(settings.max_sessions, settings.session_ttl_s)
        self._balances = settings.load_balance
        if self._balances is None:
            # Experts of one deployment wait in one queue: there is nothing to choose between.
            self._balances = len(groups(config)) > 1
        self._bias = LoadBias(tuple(config.experts))

    def situation(self, task: Task) -> Situation:
        """What the router should know beside the request; counts as one request for the balance."""
        waits = self._loads.waits() if self._balances or task.deadline is not None else {}
        if self._balances:
            self._bias = self._bias.after(waits)
        return Situation(
            previous=self._previous(task),
            costs=self._costs(task),
            waits=waits if task.deadline is not None else {},
            biases=self._bias.values,
            seconds_left=None if task.deadline is None else task.deadline - time.monotonic(),
            attached=task.attached,
        )

    def remember(self, task: Task, decision: Decision) -> None:
        """Note a decision as the last of its session, unless no expert was sure."""
        if task.session is not None and not decision.abstained:
            self._sessions.remember(task.principal.tenant, task.session, decision.weights())

    def affords(self, task: Task, name: str) -> bool:
        """Whether an answer of this expert alone is within the request's `max_cost`."""
        most = task.overrides.max_cost
        return most is None or self._cost(task, name) <= most

    def _previous(self, task: Task) -> dict[str, float]:
        if task.session is None:
            return {}
        return dict(self._sessions.last(task.principal.tenant, task.session))

    def _costs(self, task: Task) -> dict[str, float]:
        if task.overrides.max_cost is None:
            return {}
        return {name: self._cost(task, name) for name in self._config.experts}

    def _cost(self, task: Task, name: str) -> float:
        """USD of the prompt, at four characters a token, and of the longest answer asked for."""
        price = self._config.experts[name].price
        read = sum(len(text) for _, text in task.messages) / CHARACTERS_PER_TOKEN
        return (read * price.input + task.sampling.max_tokens * price.output) / _MILLION
