"""The random choices of one answer: functions of its seed and the place, whatever else runs."""

from __future__ import annotations

import hashlib
from typing import Protocol

import torch


class Dice(Protocol):
    """A source of choices. Different uses at one position are independent of each other."""

    def pick(self, weights: torch.Tensor, position: int, use: str) -> int:
        """An index with probability in proportion to `weights` [n], float64, not all 0."""
        ...

    def accepts(self, probability: float, position: int) -> bool:
        """True with this probability (1 and more: always)."""
        ...


class SeededDice:
    """Choices by inverting the cumulative weights at a number derived from (seed, position, use).

    A replay with the same seed gives the same text whatever else was in the batch.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def pick(self, weights: torch.Tensor, position: int, use: str) -> int:
        """See `Dice`."""
        cumulative = weights.cumsum(0)
        point = self._uniform(position, use) * float(cumulative[-1])
        # Right of equal values: an index of weight 0 adds nothing and is never the one.
        index = int(torch.searchsorted(cumulative, point, right=True))
        return min(index, int(cumulative.argmax()))

    def accepts(self, probability: float, position: int) -> bool:
        """See `Dice`."""
        return self._uniform(position, "accept") < probability

    def _uniform(self, position: int, use: str) -> float:
        """A number in [0, 1) with 53 random bits."""
        text = f"{self._seed}:{position}:{use}"
        digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
        return float(int.from_bytes(digest, "big") >> 11) / float(1 << 53)
