"""Grounds: what an answer stands on, and how much of it its sources support."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from orchestrator.grounding import is_silent
from orchestrator.request import Grounding
from orchestrator.sources import Sources
from orchestrator.telemetry import Attribute
from retrieval.support import Tally
from router.provenance import LoggedSource, Provenance


class Standing(StrEnum):
    """How an answer stands to the sources, in the words of `x_routing.grounding`."""

    OFF = "off"
    NONE = "none"
    GROUNDED = "grounded"
    PARTLY = "partly"
    NOT_IN_SOURCES = "not_in_sources"


@dataclass(frozen=True)
class Grounds:
    """The sources that an expert saw, and how many sentences of its answer they support."""

    standing: Standing
    sources: Sources = Sources()
    tally: Tally = Tally()

    @classmethod
    def of(cls, asked: Grounding, sources: Sources, text: str, tally: Tally) -> Grounds:
        """Those of a whole answer; `text` may hold no marks."""
        if asked is Grounding.OFF:
            standing = Standing.OFF
        elif not sources.passages:
            required = asked is Grounding.REQUIRED
            standing = Standing.NOT_IN_SOURCES if required else Standing.NONE
        elif is_silent(text) or tally.sentences and not tally.supported:
            standing = Standing.NOT_IN_SOURCES
        elif tally.supported and tally.supported == tally.sentences:
            standing = Standing.GROUNDED
        else:
            # Some are supported, or nothing was said that can be checked.
            standing = Standing.PARTLY
        return cls(standing, sources, tally)

    def provenance(self, *, with_sources: bool) -> Provenance:
        """What a log keeps of it."""
        passages = self.sources.passages if with_sources else ()
        return Provenance(
            grounding=str(self.standing),
            sentences=self.tally.sentences,
            supported=self.tally.supported,
            sources=tuple(
                LoggedSource(p.collection, p.passage_id, p.sha256, p.start, p.end) for p in passages
            ),
        )

    def attributes(self) -> dict[str, Attribute]:
        """What a trace keeps: the sources by id, hash and span, never what they say."""
        passages = self.sources.passages
        return {
            "collegium.grounding": str(self.standing),
            "collegium.grounding.passages": [f"{p.collection}/{p.passage_id}" for p in passages],
            "collegium.grounding.sources": [p.sha256 for p in passages],
            "collegium.grounding.spans": [f"{p.start}-{p.end}" for p in passages],
            "collegium.grounding.sentences": self.tally.sentences,
            "collegium.grounding.supported": self.tally.supported,
            "collegium.grounding.withheld": self.sources.withheld,
        }
