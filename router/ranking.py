"""All experts of a decision, most probable first; each is made when it is looked at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import overload

import numpy as np

from router.chances import Array, Chances, Places, Roster, largest


@dataclass(frozen=True)
class Candidate:
    """One expert as the router saw it: calibrated probability, and the weight it was given."""

    name: str
    probability: float
    weight: float


class Ranking(Sequence[Candidate]):
    """The candidates over `chances`; `weights` holds those above 0, heaviest first.

    A thousand candidates as objects would cost more than the decision itself.
    """

    def __init__(self, chances: Chances, weights: Mapping[str, float]) -> None:
        self.chances, self.weights = chances, dict(weights)

    @classmethod
    def of(cls, candidates: Sequence[Candidate]) -> Ranking:
        """Return a ranking of these candidates; a ranking comes back as it is."""
        if isinstance(candidates, Ranking):
            return candidates
        roster = Roster([candidate.name for candidate in candidates])
        array = np.array([candidate.probability for candidate in candidates], dtype=np.float64)
        held = sorted((c for c in candidates if c.weight > 0.0), key=lambda c: -c.weight)
        return cls(Chances(roster, array), {c.name: c.weight for c in held})

    def top(self, count: int) -> list[Candidate]:
        """Return the `count` most probable, and behind them those with a weight that are not."""
        places = largest(self.chances.array, count)
        names, values = self.chances.names(places), self.chances.array[places].tolist()
        seen = frozenset(names)
        return [
            *(
                Candidate(name, value, self.weights.get(name, 0.0))
                for name, value in zip(names, values, strict=True)
            ),
            *(self._candidate(name) for name in self.weights if name not in seen),
        ]

    def probabilities(self, names: Sequence[str]) -> Array:
        """[names] probabilities of these experts; 0 for one that is no candidate."""
        if names == self.chances.roster.names:
            return self.chances.array
        return np.array([self.chances.get(name, 0.0) for name in names], dtype=np.float64)

    @overload
    def __getitem__(self, place: int) -> Candidate: ...

    @overload
    def __getitem__(self, place: slice) -> list[Candidate]: ...

    def __getitem__(self, place: int | slice) -> Candidate | list[Candidate]:
        names = self.chances.roster.names
        if isinstance(place, slice):
            return [self._candidate(names[at]) for at in self._order[place]]
        return self._candidate(names[self._order[place]])

    def __iter__(self) -> Iterator[Candidate]:
        names, values = self.chances.roster.names, self.chances.array.tolist()
        for at in self._order.tolist():
            yield Candidate(names[at], values[at], self.weights.get(names[at], 0.0))

    def __len__(self) -> int:
        return len(self.chances)

    def __eq__(self, other: object) -> bool:
        return list(self) == list(other) if isinstance(other, Ranking) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.chances.roster.names)

    def __repr__(self) -> str:
        return repr(tuple(self))

    def _candidate(self, name: str) -> Candidate:
        return Candidate(name, self.chances[name], self.weights.get(name, 0.0))

    @cached_property
    def _order(self) -> Places:
        return np.argsort(-self.chances.array, kind="stable")
