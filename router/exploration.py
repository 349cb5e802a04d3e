"""Exploration: for a share of the requests chance chooses the expert, so that a log can teach.

A router that always does the same shows only what its own choices are worth. Where one expert is
drawn by the gate's probabilities now and then, every choice that the gate thinks possible is made
with a known probability, and another version can be judged by the log (`off_policy.py`).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from router.cast import position
from router.chances import Chances
from router.decision import Decision
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
    chances, policy = decision.ranking.chances, decision.chosen
    explored = position(key, _WHETHER) < rate
    chosen = (drawn(chances, position(key, _WHO)),) if explored else policy
    draw = Draw(rate, policy, explored, propensity(chosen, policy, chances, rate))
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


def drawn(chances: Chances, place: float) -> str:
    """Return the name at a place from 0 to 1 of the experts laid side by side, by probability.

    One of probability 0 is never drawn.
    """
    edges = np.cumsum(chances.array)
    found = int(np.searchsorted(edges, place * edges[-1], side="right"))
    last = int(np.flatnonzero(chances.array)[-1])
    return chances.roster.names[min(found, last)]
