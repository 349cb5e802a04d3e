"""A decision made again with retrieval evidence: the same policy over raised probabilities."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from router.chances import Chances
from router.decision import Decision
from router.evidence import Clue, Hint, SecondStage, raised
from router.exploration import explore
from router.overrides import Overrides, listed
from router.policy import Verdict, decide
from router.ranking import Ranking
from router.situation import Situation

_NOTED, _NAMED = 0.005, 2


def weigh(
    decision: Decision,
    clues: Mapping[str, Clue],
    generalist: str,
    overrides: Overrides,
    situation: Situation,
    *,
    disabled: Collection[str] = (),
    key: str = "",
) -> Decision:
    """Return the decision as it is with what was found for experts (`clues` by name).

    It comes back unchanged where its router weighs no evidence, the caller set the weights, or
    nothing found is closer than the scale's centre. Overrides, situation and `disabled` are those
    that it was made with, and bind as before. Where chance may choose, it draws again by the same
    `key`, from the raised probabilities.
    """
    stage = decision.second
    if stage is None or overrides.weights is not None:
        return decision
    before = decision.ranking.chances
    shifts = {
        name: stage.scale.shift(clue.similarity)
        for name, clue in clues.items()
        if name != generalist and name in before and name not in disabled
    }
    shifts = {name: shift for name, shift in shifts.items() if shift > 0.0}
    if not shifts:
        return decision
    after = raised(before, shifts)
    verdict = decide(after, generalist, stage.policy, overrides, situation, disabled)
    weighed = _weighed(decision, verdict, _hints(before, verdict, clues, shifts), stage)
    draw = decision.draw
    return weighed if draw is None else explore(weighed, draw.rate, key)


def _hints(
    before: Chances,
    verdict: Verdict,
    clues: Mapping[str, Clue],
    shifts: Mapping[str, float],
) -> tuple[Hint, ...]:
    """The largest rise first; an expert that is not allowed has neither probability nor hint."""
    found = [
        Hint(
            name,
            clues[name].collection,
            clues[name].similarity,
            before[name],
            verdict.probabilities[name],
        )
        for name in shifts
        if verdict.probabilities[name] > 0.0
    ]
    return tuple(sorted(found, key=lambda hint: hint.before - hint.after))


def _weighed(
    decision: Decision, verdict: Verdict, hints: tuple[Hint, ...], stage: SecondStage
) -> Decision:
    former = decision.chosen if decision.draw is None else decision.draw.policy
    chosen = tuple(verdict.weights)
    notes = [verdict.reason, *stage.notes, *_notes(hints)]
    if set(chosen) != set(former):
        notes.append(f"evidence moved the choice from {listed(former)} to {listed(chosen)}")
    return replace(
        decision,
        candidates=Ranking(Chances.of(verdict.probabilities), verdict.weights),
        chosen=chosen,
        k=len(chosen),
        reason="; ".join(notes),
        fallback=verdict.abstained,
        abstained=verdict.abstained,
        hints=hints,
    )


def _notes(hints: tuple[Hint, ...]) -> list[str]:
    return [
        f"a passage of {hint.collection} (cosine {hint.similarity:.2f}) moved {hint.expert} from "
        f"{hint.before:.2f} to {hint.after:.2f}"
        for hint in hints[:_NAMED]
        if abs(hint.after - hint.before) >= _NOTED
    ]
