"""Whether an earlier answer serves a new question of the same kin, or is compared with its own."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from orchestrator.cache_config import SemanticCacheConfig
from orchestrator.hit_risk import Allowance, HitRisk
from orchestrator.likeness import Likeness

REMEMBERED = 4_000
"""Comparisons that are learnt from, the latest."""

_OFTEN, _SELDOM = 25, 100
_MANY = 1_000


@dataclass(frozen=True)
class Verdict:
    """What is to be done. Where it does not serve, the own answer is to be compared."""

    likeness: Likeness
    risk: float
    serves: bool


class HitPolicy:
    """Learns from comparisons, and keeps the expected share of wrong answers below `max_error`.

    `draw` gives numbers from 0 to 1, for the share that is compared although it could be served.
    """

    def __init__(self, settings: SemanticCacheConfig, draw: Callable[[], float]) -> None:
        self._settings, self._draw = settings, draw
        self._risk, self._allowance = HitRisk(), Allowance(settings.max_error)
        self._rows: deque[tuple[Sequence[float], bool]] = deque(maxlen=REMEMBERED)
        self._new = 0

    def decide(self, likeness: Likeness | None) -> Verdict | None:
        """The verdict on a request; None where there is nothing to serve or to compare with."""
        if likeness is None or likeness.similarity < self._settings.min_similarity:
            self._allowance.note(None)
            return None
        ready = len(self._rows) >= self._settings.learn_from
        risk = self._risk.risk(likeness.features()) if ready else 1.0
        self._allowance.note(risk if ready else None)
        if not ready or risk > self._allowance.limit:
            return Verdict(likeness, risk, serves=False)
        return Verdict(likeness, risk, serves=self._draw() >= self._settings.audit)

    def learn(self, features: Sequence[float], *, same: bool) -> None:
        """Take in a comparison."""
        self._rows.append((features, same))
        self._new += 1
        if self._new >= (_OFTEN if len(self._rows) < _MANY else _SELDOM):
            self.settle()

    def settle(self) -> None:
        """Learn from all that was taken in."""
        if self._new and len(self._rows) >= self._settings.learn_from:
            rows, same = zip(*self._rows, strict=True)
            self._risk.fit(rows, same)
            self._new = 0
