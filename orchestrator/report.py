"""The record of a decision: `x_routing` for the caller, attributes for the trace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from experts.generation import Usage
from orchestrator.combination import Outcome, Team
from orchestrator.request import Grounding, Weighting
from orchestrator.task import Task
from orchestrator.telemetry import Attribute
from orchestrator.wire import RoutedExpert, RoutingReport
from retrieval.passage import Passage
from router.decision import Decision
from router.logged_decision import draw_of


def report(
    task: Task,
    decision: Decision,
    team: Team,
    outcome: Outcome,
    passages: Sequence[Passage],
    timings: Mapping[str, float],
) -> RoutingReport:
    """Who was considered, who spoke, how, and why."""
    spoke = dict(outcome.spoke or team.experts)
    probabilities = {c.name: c.probability for c in decision.candidates}
    notes = [decision.reason, team.note, *outcome.notes]
    used = "used" if passages else "none"
    draw = draw_of(decision)
    return RoutingReport(
        decision_id=task.decision_id,
        router_version=decision.router_version,
        mode=str(outcome.mode),
        reason="; ".join(note for note in notes if note),
        fallback=decision.fallback or outcome.fallback,
        explored=draw.explored,
        propensity=draw.propensity,
        experts=[
            RoutedExpert(name=n, weight=w, probability=probabilities.get(n, 0.0))
            for n, w in spoke.items()
        ],
        candidates=[
            RoutedExpert(name=c.name, weight=spoke.get(c.name, 0.0), probability=c.probability)
            for c in decision.candidates
        ],
        k=len(spoke),
        method=outcome.method or None,
        weighting=str(task.weighting) if len(spoke) > 1 else str(Weighting.ROUTER),
        grounding="off" if task.grounding is Grounding.OFF else used,
        timings_ms=dict(timings),
    )


def describe(decision: Decision) -> dict[str, Attribute]:
    """The whole decision as span attributes; lists of candidates run in the same order."""
    return {
        "collegium.routing.candidates": [c.name for c in decision.candidates],
        "collegium.routing.probabilities": [c.probability for c in decision.candidates],
        "collegium.routing.weights": [c.weight for c in decision.candidates],
        "collegium.routing.chosen": list(decision.chosen),
        "collegium.routing.k": decision.k,
        "collegium.routing.reason": decision.reason,
        "collegium.routing.fallback": decision.fallback,
        "collegium.routing.abstained": decision.abstained,
        "collegium.routing.explored": draw_of(decision).explored,
        "collegium.routing.propensity": draw_of(decision).propensity,
        "collegium.routing.router_version": decision.router_version,
    }


def tokens(usage: Usage) -> dict[str, Attribute]:
    """Token counts as span attributes."""
    return {
        "gen_ai.usage.input_tokens": usage.prompt_tokens,
        "gen_ai.usage.output_tokens": usage.completion_tokens,
    }
