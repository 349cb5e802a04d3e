"""The router's verdict on one request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from router.draw import Draw
from router.features import Vector
from router.ranking import Candidate, Ranking

if TYPE_CHECKING:
    from router.evidence import Hint, SecondStage

__all__ = ["Candidate", "Decision", "Stage"]

Stage = Literal["first", "gate"]
"""Who decided: the first stage by the surface of the text alone, or the gate."""


@dataclass(frozen=True)
class Decision:
    """Every candidate with probability and weight, and why these experts were chosen.

    `candidates` holds all experts, the generalist included, most probable first; their
    probabilities sum to 1. `chosen` names those with a weight above 0, heaviest first; their
    weights sum to 1. `fallback` tells that the generalist stands in for an expert, `abstained`
    that it does so because no expert was probable enough. `seconds` is the time of routing,
    `stage` who decided, `vector` [d] the conversation's sentence vector, for retrieval; None where
    the first stage did and no vector was made.

    `second` is what a second stage needs, None where there is none; `hints` are what it went by.

    For a log: `draw` tells what chance had to do with it, None where nothing was left to chance;
    `features` is what was read, as float16, None unless the router was asked to keep it. They are
    the surface alone where there is no vector.
    """

    candidates: Sequence[Candidate]
    chosen: tuple[str, ...]
    k: int
    reason: str
    fallback: bool
    abstained: bool
    router_version: str
    seconds: float = field(compare=False)
    vector: Vector | None = field(compare=False, repr=False)
    draw: Draw | None = None
    features: npt.NDArray[np.float16] | None = field(default=None, compare=False, repr=False)
    stage: Stage = "gate"
    second: SecondStage | None = field(default=None, compare=False, repr=False)
    hints: tuple[Hint, ...] = ()

    @property
    def ranking(self) -> Ranking:
        """The candidates, of which the first few can be had without making all of them."""
        return Ranking.of(self.candidates)

    def weights(self) -> dict[str, float]:
        """Return the chosen experts' weights by name, heaviest first."""
        held = self.ranking.weights
        return {name: held[name] for name in self.chosen}
