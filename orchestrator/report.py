"""The record of a decision: `x_routing` for the caller, attributes for the trace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from experts.generation import Usage
from orchestrator.combination import Outcome, Team
from orchestrator.grounds import Grounds
from orchestrator.request import Weighting
from orchestrator.task import Task
from orchestrator.telemetry import Attribute
from orchestrator.wire import (
    RoutedEvidence,
    RoutedExpert,
    RoutedOthers,
    RoutedSupport,
    RoutingReport,
)
from router.decision import Decision
from router.logged_decision import draw_of
from router.ranking import Candidate

MOST_CANDIDATES = 64
"""Of more, the most probable are listed, and those that speak."""


def report(
    task: Task,
    decision: Decision,
    team: Team,
    outcome: Outcome,
    grounds: Grounds | None,
    timings: Mapping[str, float],
) -> RoutingReport:
    """Who was considered, who spoke, how, and why; without `grounds` nothing was answered."""
    spoke = dict(outcome.spoke or team.experts)
    chances = decision.ranking.chances
    shown = _shown(decision, list(spoke))
    notes = [decision.reason, team.note, *outcome.notes]
    draw = draw_of(decision)
    return RoutingReport(
        decision_id=task.decision_id,
        router_version=decision.router_version,
        mode=str(outcome.mode),
        reason="; ".join(note for note in notes if note),
        fallback=decision.fallback or outcome.fallback,
        stage=decision.stage,
        explored=draw.explored,
        propensity=draw.propensity,
        experts=[
            RoutedExpert(name=n, weight=w, probability=chances.get(n, 0.0))
            for n, w in spoke.items()
        ],
        candidates=[
            RoutedExpert(name=c.name, weight=spoke.get(c.name, 0.0), probability=c.probability)
            for c in shown
        ],
        others=_others(decision, shown),
        evidence=_evidence(decision),
        k=len(spoke),
        method=outcome.method or None,
        weighting=str(task.weighting) if len(spoke) > 1 else str(Weighting.ROUTER),
        grounding=None if grounds is None else str(grounds.standing),
        support=_support(grounds),
        timings_ms=dict(timings),
    )


def describe(decision: Decision) -> dict[str, Attribute]:
    """The decision as span attributes; lists of candidates run in the same order."""
    shown = _shown(decision, [])
    return {
        "collegium.routing.candidates": [c.name for c in shown],
        "collegium.routing.probabilities": [c.probability for c in shown],
        "collegium.routing.weights": [c.weight for c in shown],
        "collegium.routing.chosen": list(decision.chosen),
        "collegium.routing.k": decision.k,
        "collegium.routing.reason": decision.reason,
        "collegium.routing.fallback": decision.fallback,
        "collegium.routing.abstained": decision.abstained,
        "collegium.routing.stage": decision.stage,
        "collegium.routing.explored": draw_of(decision).explored,
        "collegium.routing.propensity": draw_of(decision).propensity,
        "collegium.routing.router_version": decision.router_version,
    }


def _shown(decision: Decision, spoke: Sequence[str]) -> list[Candidate]:
    ranking = decision.ranking
    listed = ranking.top(MOST_CANDIDATES)
    names = {candidate.name for candidate in listed}
    late = [name for name in spoke if name not in names and name in ranking.chances]
    return listed + [Candidate(name, ranking.chances[name], 0.0) for name in late]


def _others(decision: Decision, shown: Sequence[Candidate]) -> RoutedOthers | None:
    left = len(decision.candidates) - len(shown)
    if not left:
        return None
    listed = sum(candidate.probability for candidate in shown)
    return RoutedOthers(count=left, probability=max(0.0, 1.0 - listed))


def _support(grounds: Grounds | None) -> RoutedSupport | None:
    if grounds is None or not grounds.sources.passages:
        return None
    tally, sources = grounds.tally, grounds.sources
    return RoutedSupport(
        sources=len(sources.passages),
        sentences=tally.sentences,
        supported=tally.supported,
        withheld=sources.withheld,
    )


def _evidence(decision: Decision) -> list[RoutedEvidence] | None:
    return [RoutedEvidence(**asdict(hint)) for hint in decision.hints] or None


def tokens(usage: Usage) -> dict[str, Attribute]:
    """Token counts as span attributes."""
    return {
        "gen_ai.usage.input_tokens": usage.prompt_tokens,
        "gen_ai.usage.output_tokens": usage.completion_tokens,
    }
