"""Rows of a log of decisions, made by hand or by a small world whose truth is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from router.draw import Draw, propensity
from router.logged_decision import LoggedDecision, Opinion
from router.overrides import Overrides
from router.situation import CALM

Choice = tuple[str, ...]


def row(
    number: int = 0,
    score: float | None = None,
    weights: Mapping[str, float] | None = None,
    draw: Draw | None = None,
    **changes: Any,  # noqa: ANN401
) -> LoggedDecision:
    """A decision for code, unless said otherwise; an opinion where there is a score."""
    acted = weights or {"code": 1.0}
    made = LoggedDecision(
        id=f"dec-{number}",
        tenant="default",
        kind="chat",
        at=1_000_000.0 + number,
        key=f"key {number}",
        router_version="abc",
        probabilities={"code": 0.7, "legal": 0.2, "general": 0.1},
        weights=acted,
        draw=draw or Draw(0.0, tuple(acted)),
        abstained=False,
        overrides=Overrides(),
        situation=CALM,
        read=None,
        text=None,
        opinion=None if score is None else Opinion(score, None, None, 1.0),
    )
    return replace(made, **changes)


@dataclass(frozen=True)
class World:
    """Requests of some kinds; what each choice of experts is worth for each kind is known.

    `shares` [kinds] are the kinds' parts of the traffic, `gate` what the gate gives each expert,
    `policy` whom the policy chooses, `worth` the mean score (of -1 and 1) of a choice.
    """

    shares: Sequence[float]
    gate: Sequence[Mapping[str, float]]
    policy: Sequence[Choice]
    worth: Sequence[Mapping[Choice, float]]

    def value(self, choices: Sequence[Choice]) -> float:
        """The mean score of a router that chooses so, kind by kind."""
        kinds = zip(self.shares, self.worth, choices, strict=True)
        return sum(share * worth[choice] for share, worth, choice in kinds)

    def log(
        self, count: int, rate: float, seed: int, wanted: Sequence[Choice]
    ) -> tuple[list[LoggedDecision], list[Choice]]:
        """Decisions that were explored at this rate, and what another router would have chosen."""
        dice = np.random.default_rng(seed)
        kinds = dice.choice(len(self.shares), size=count, p=self.shares)
        rows = [self._row(number, int(kind), rate, dice) for number, kind in enumerate(kinds)]
        return rows, [wanted[kind] for kind in kinds]

    def _row(
        self, number: int, kind: int, rate: float, dice: np.random.Generator
    ) -> LoggedDecision:
        gate, policy = self.gate[kind], self.policy[kind]
        explored = bool(dice.random() < rate)
        acted = policy
        if explored:
            acted = (str(dice.choice(list(gate), p=list(gate.values()))),)
        score = 1.0 if dice.random() < (1.0 + self.worth[kind][acted]) / 2.0 else -1.0
        draw = Draw(rate, policy, explored, propensity(acted, policy, gate, rate))
        weights = {name: 1.0 / len(acted) for name in acted}
        return row(number, score, weights, draw, probabilities=gate)


A, B, C, AB = ("a",), ("b",), ("c",), ("a", "b")

WORLD = World(
    shares=(0.5, 0.3, 0.2),
    gate=(
        {"a": 0.6, "b": 0.3, "c": 0.1},
        {"a": 0.5, "b": 0.1, "c": 0.4},
        {"a": 0.2, "b": 0.4, "c": 0.4},
    ),
    policy=(A, A, AB),
    worth=(
        {A: 0.2, B: 0.7, C: -0.5},
        {A: -0.4, B: -0.6, C: 0.8},
        {A: 0.1, B: 0.3, C: -0.2, AB: 0.5},
    ),
)
BETTER = (B, C, AB)
"""Whom a better router than the world's would choose, kind by kind."""
