"""The librarian: what of the collections a request may see, and what is in them for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from orchestrator.config import Config
from orchestrator.errors import InvalidRequest, NotFound
from orchestrator.ports import RetrieverPort
from orchestrator.request import Grounding
from orchestrator.search_settings import search_settings
from orchestrator.task import Task
from orchestrator.telemetry import Carrier
from retrieval.errors import InvalidName
from retrieval.finding import NOTHING, Finding, best_of
from retrieval.passage import Passage
from retrieval.relevance import least_relevance, relevance
from router.decision import Decision
from router.evidence import Clue
from router.second_stage import weigh
from router.situation import Situation


class Librarian:
    """Searches for requests, within the rights of who asks."""

    def __init__(self, config: Config, retriever: RetrieverPort) -> None:
        self._config, self._retriever = config, retriever
        self._settings = search_settings(config.retrieval)

    def weighs(self, task: Task, decision: Decision) -> bool:
        """Whether what is found is to weigh in the choice of experts."""
        asked = task.grounding is not Grounding.OFF and not task.forced
        return asked and decision.second is not None

    def shelves(self, task: Task, experts: Sequence[str]) -> list[str]:
        """What the caller named, else what these experts read, within the caller's rights."""
        if task.grounding is Grounding.OFF:
            return []
        named = task.collections
        if named is None:
            named = tuple(c for name in experts for c in self._config.experts[name].collections)
        return [name for name in dict.fromkeys(named) if task.principal.may_read(name)]

    def candidates(self, task: Task) -> list[str]:
        """The experts that may answer."""
        allowed = task.overrides.experts
        return [
            name
            for name, expert in self._config.experts.items()
            if expert.enabled and (allowed is None or name in allowed)
        ]

    async def search(
        self, task: Task, decision: Decision, names: Sequence[str], trace: Carrier
    ) -> list[Finding]:
        """What each of these collections holds for the request, those that were ever filled.

        Raises:
            InvalidRequest, NotFound: the caller named a collection that cannot be.
        """
        top_k = self._config.retrieval.top_k
        # The decision's vector is of all that was heard, attached files included.
        vector = decision.vector if task.query == task.said else None
        asked = (task.query, vector, names, top_k, trace, task.condition)
        try:
            found = await self._retriever.search(*asked)
        except InvalidName as error:
            raise InvalidRequest(str(error), param="routing.collections") from error
        missing = set(names) - {finding.collection for finding in found}
        if missing and task.collections is not None:
            # Not with a list of those that exist: the caller may not read them all.
            raise NotFound(
                f"There is no collection {min(missing)!r}: name another in `routing.collections`.",
                param="routing.collections",
                code="collection_not_found",
            )
        return found

    def weigh(
        self, task: Task, decision: Decision, findings: Sequence[Finding], situation: Situation
    ) -> Decision:
        """The decision taken again, with the closest finding for each expert that may answer."""
        experts, general = self._config.experts, self._config.generalist
        readers = {name: experts[name].collections for name in self.candidates(task)}
        given = clues(readers, findings), general, task.overrides, situation
        return weigh(decision, *given, disabled=self._config.disabled, key=task.key)

    def best(self, findings: Sequence[Finding], names: Sequence[str]) -> list[Passage]:
        """The best passages of these collections, best first."""
        settings = self._config.retrieval
        own = [finding for finding in findings if finding.collection in names]
        best = best_of(own, settings.top_k, self._settings)
        return [passage for passage in best if passage.similarity >= settings.min_similarity]

    def pick(self, task: Task, findings: Sequence[Finding], names: Sequence[str]) -> list[Passage]:
        """The best passages, none where they are unlikely to hold an answer."""
        own = [finding for finding in findings if finding.collection in names]
        best = self.best(own, names)
        if not best:
            return []
        least = self._config.retrieval.min_relevance
        least = least_relevance() if least is None else least
        return best if relevance(task.query, own, self._settings) >= least else []


def clues(readers: Mapping[str, Sequence[str]], findings: Sequence[Finding]) -> dict[str, Clue]:
    """For each expert the closest finding in one of its collections; none where none was searched.

    `readers` are collections by expert.
    """
    closest: dict[str, Clue] = {}
    for name, collections in readers.items():
        own = [one for one in findings if one.collection in collections]
        best = max(own, key=lambda one: one.similarity, default=None)
        if best is not None and best.similarity > NOTHING:
            closest[name] = Clue(best.collection, best.similarity)
    return closest
