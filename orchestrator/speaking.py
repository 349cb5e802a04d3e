"""Speaking: the experts' answer over its sources, with marks, as the caller will read it."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field, replace

from experts.generation import (
    Busy,
    Chunk,
    ExpertError,
    FinishReason,
    Generation,
    Late,
    PromptTooLong,
    Usage,
)
from orchestrator.citing import Marker
from orchestrator.combination import Combiner, Outcome, Team
from orchestrator.config import Config
from orchestrator.deadline import too_late
from orchestrator.errors import ContextTooLong, ExpertUnavailable, Overloaded
from orchestrator.grounding import SILENT, ground
from orchestrator.grounds import Grounds
from orchestrator.ports import RetrieverPort
from orchestrator.prompt_size import conversation_size
from orchestrator.report import tokens
from orchestrator.request import Grounding, Weighting
from orchestrator.sources import Sources
from orchestrator.task import Task
from orchestrator.telemetry import Carrier, Telemetry, carrier, failing
from retrieval.attribution import Citation
from retrieval.passage import Passage
from retrieval.support import Tally


@dataclass
class Speech:
    """An answer while it is spoken: who speaks over which sources, and what became of it."""

    task: Task
    team: Team
    sources: Sources
    outcome: Outcome
    marker: Marker | None = None
    said: list[str] = field(default_factory=list)

    @property
    def citations(self) -> tuple[Citation, ...]:
        """The marks so far."""
        return self.marker.citations if self.marker else ()

    def grounds(self) -> Grounds:
        """What the answer stands on, once it is whole."""
        tally = self.marker.tally if self.marker else Tally()
        return Grounds.of(self.task.grounding, self.sources, "".join(self.said), tally)


class Speaker:
    """Has a team speak."""

    def __init__(
        self, config: Config, combiner: Combiner, retriever: RetrieverPort, telemetry: Telemetry
    ) -> None:
        self._config, self._combiner = config, combiner
        self._retriever, self._telemetry = retriever, telemetry

    def sources(self, task: Task, team: Team, passages: Sequence[Passage]) -> Sources:
        """What of these passages the team can be shown beside the conversation.

        Raises:
            ContextTooLong: an answer has to be grounded, and nothing fits.
        """
        longest = self._config.retrieval.passage_characters
        found = Sources.of(passages, task.query, self._room(task, team), longest)
        if task.grounding is Grounding.REQUIRED and found.unfit and not found.passages:
            raise ContextTooLong(
                "`messages` and `max_tokens` leave no room for a source: shorten one of them.",
                param="messages",
            )
        return found

    def _room(self, task: Task, team: Team) -> int | None:
        """Tokens that are left for sources, None where no expert's context is known."""
        names = {name for name, _ in team.experts}
        if team.standby:
            names.add(self._config.generalist)
        models = {self._config.experts[name].model for name in names}
        contexts = [self._config.models[model].context for model in models if model is not None]
        if not contexts:
            return None
        return min(contexts) - task.sampling.max_tokens - conversation_size(task.messages)

    async def speak(self, speech: Speech, trace: Carrier) -> AsyncGenerator[Chunk, None]:
        """Stream an answer, marks included; what cannot be answered from sources says so.

        Where a tokenizer counts more than was thought, it begins again with fewer sources.

        Raises:
            CollegiumError: of the kind that the caller should see.
        """
        if speech.task.grounding is Grounding.REQUIRED and not speech.sources.passages:
            speech.outcome.notes.append("no source holds an answer: no expert was asked")
            speech.said.append(SILENT)
            with self._telemetry.span("collegium.silence", trace) as span:
                span.set_attributes(speech.grounds().attributes())
            yield Chunk(SILENT)
            yield Chunk("", finish_reason=FinishReason.STOP, usage=Usage(0, 0))
            return
        while True:
            begun = False
            try:
                async with aclosing(self._marked(speech, trace)) as chunks:
                    async for chunk in chunks:
                        begun = True
                        yield chunk
            except ContextTooLong:
                fewer = speech.sources.fewer()
                required = speech.task.grounding is Grounding.REQUIRED
                if begun or not speech.sources.passages or required and not fewer.passages:
                    raise
                speech.outcome.notes.append("fewer sources than were found fit the context")
                speech.sources = fewer
            else:
                return

    async def _marked(self, speech: Speech, trace: Carrier) -> AsyncGenerator[Chunk, None]:
        passages = speech.sources.passages
        marker = Marker(passages, self._retriever, speech.task.query)
        speech.marker = marker
        async with aclosing(self._combined(speech, trace)) as chunks:
            async for chunk in chunks:
                speech.said.append(chunk.text)
                with for_caller():
                    text = await marker.feed(chunk.text, final=chunk.finish_reason is not None)
                yield replace(chunk, text=text)

    async def _combined(self, speech: Speech, trace: Carrier) -> AsyncGenerator[Chunk, None]:
        team, outcome, request = speech.team, speech.outcome, _request(speech)
        span = self._telemetry.start(
            "collegium.combine",
            trace,
            collegium__mode=str(team.mode),
            collegium__lead=team.lead,
            gen_ai__request__max_tokens=request.sampling.max_tokens,
            gen_ai__request__temperature=request.sampling.temperature,
        )
        traced = replace(request, trace=carrier(span))
        texts = [text for _, text in speech.sources.shown]
        combined = self._combiner.stream(traced, team, texts, outcome)
        try:
            with failing(span), for_caller():
                async with aclosing(combined) as chunks:
                    async for chunk in chunks:
                        if chunk.usage is not None:
                            span.set_attributes(tokens(chunk.usage))
                        yield chunk
        finally:
            span.set_attribute("collegium.fallback", outcome.fallback)
            span.set_attributes(speech.grounds().attributes())
            span.end()


def _request(speech: Speech) -> Generation:
    task = speech.task
    only = task.grounding is Grounding.REQUIRED
    return Generation(
        id=task.id,
        messages=ground(task.messages, speech.sources.shown, only=only),
        experts=speech.team.experts,
        sampling=task.sampling,
        posterior=task.weighting is Weighting.POSTERIOR,
        priority=task.priority,
        deadline_s=None if task.deadline is None else task.deadline - time.monotonic(),
        principal=task.principal.tenant,
    )


@contextmanager
def for_caller() -> Iterator[None]:
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
