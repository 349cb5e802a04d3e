"""Exploration: for a share of the requests chance chooses the expert, so that a log can teach.

A router that always does the same shows only what its own choices are worth. Where one expert is
drawn by the gate's probabilities now and then, every choice that the gate thinks possible is made
with a known probability, and another version can be judged by the log (`off_policy.py`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from router.cast import position
from router.decision import Candidate, Decision
from router.draw import Draw, propensity
from router.overrides import Overrides
from router.ranking import Ranking
from router.situation import Situation

_WHETHER, _WHO = "explore", "explored expert"


def may_explore(overrides: Overrides, situation: Situation) -> bool:
    """Tell whether chance may choose: not where the request itself bounds who answers.

    That is by weights or experts, by a confidence, or by a limit of cost or time.
    """
    bounds = (
        overrides.weights,
        overrides.experts,
        overrides.min_confidence,
        overrides.max_cost,
        situation.seconds_left,
    )
    return all(bound is None for bound in bounds)


def explore(decision: Decision, rate: float, key: str) -> Decision:
    """Return the decision as it acts where `rate` of the requests are explored.

    The request's `key` says whether it is, and whom it meets: the same key the same place in the
    draw. The reason says so; the propensity stands in `draw` in either case.
    """
    probabilities = {candidate.name: candidate.probability for candidate in decision.candidates}
    policy = decision.chosen
    explored = position(key, _WHETHER) < rate
    chosen = (drawn(decision.candidates, position(key, _WHO)),) if explored else policy
    draw = Draw(rate, policy, explored, propensity(chosen, policy, probabilities, rate))
    if not explored:
        return replace(decision, draw=draw)
    note = f"exploration (router.explore {rate:g}) drew {chosen[0]}"
    if chosen == policy:
        return replace(decision, reason=f"{note}, as the policy; {decision.reason}", draw=draw)
    return replace(
        decision,
        candidates=Ranking(decision.ranking.chances, {chosen[0]: 1.0}),
        chosen=chosen,
        k=1,
        reason=f"{note} in place of {' and '.join(policy)}; the policy: {decision.reason}",
        fallback=False,
        abstained=False,
        draw=draw,
    )


def drawn(candidates: Sequence[Candidate], place: float) -> str:
    """Return the name at a place from 0 to 1 of the candidates laid side by side, by probability.

    One of probability 0 is never drawn.
    """
    able = [candidate for candidate in candidates if candidate.probability > 0.0]
    point = place * math.fsum(candidate.probability for candidate in able)
    for candidate in able:
        point -= candidate.probability
        if point < 0.0:
            return candidate.name
    return able[-1].name
