"""Probabilities of many experts: a mapping by name over one array, so that many cost little."""

from __future__ import annotations

from collections.abc import Callable, ItemsView, Iterator, Mapping, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]


class Roster:
    """The names of some experts in a fixed order, and the place of each."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)

    @cached_property
    def places(self) -> Mapping[str, int]:
        """The place of every name."""
        return {name: place for place, name in enumerate(self.names)}

    @cached_property
    def everyone(self) -> Places:
        """All places."""
        return np.arange(len(self.names))

    def at(self, names: Sequence[str]) -> Places:
        """The places of these names, in their order. Raises `KeyError` for a stranger."""
        return np.array([self.places[name] for name in names], dtype=np.int64)

    def __reduce__(self) -> tuple[Callable[[str], Roster], tuple[str]]:
        # A roster travels with every decision: one text is read quicker than a thousand.
        return _roster, ("\0".join(self.names),)


def _roster(text: str) -> Roster:
    return Roster(text.split("\0") if text else ())


class Chances(Mapping[str, float]):
    """A number for every name of a roster; `array` [names] is in the roster's order."""

    def __init__(self, roster: Roster, array: Array) -> None:
        self.roster, self.array = roster, array

    @classmethod
    def of(cls, numbers: Mapping[str, float]) -> Chances:
        """Return the same numbers by the same names; chances come back as they are."""
        if isinstance(numbers, Chances):
            return numbers
        return cls(Roster(tuple(numbers)), np.array(list(numbers.values()), dtype=np.float64))

    def __getitem__(self, name: str) -> float:
        return float(self.array[self.roster.places[name]])

    def __iter__(self) -> Iterator[str]:
        return iter(self.roster.names)

    def __len__(self) -> int:
        return len(self.roster.names)

    def items(self) -> ItemsView[str, float]:
        """Names with their numbers, made at once."""
        return dict(zip(self.roster.names, self.array.tolist(), strict=True)).items()

    def __repr__(self) -> str:
        return f"Chances({dict(self)!r})"

    def names(self, places: Sequence[int] | Places) -> list[str]:
        """The names at these places."""
        known = self.roster.names
        return [known[place] for place in places]

    def only(self, places: Places) -> Chances:
        """Return the numbers at these places, 0 everywhere else."""
        if len(places) == len(self.array):
            return self
        kept = np.zeros_like(self.array)
        kept[places] = self.array[places]
        return Chances(self.roster, kept)


def largest(values: Array, count: int) -> list[int]:
    """Return the places of the `count` largest values, largest first, equal ones in their order."""
    if count < len(values):
        cut = len(values) - count
        at = np.flatnonzero(values >= np.partition(values, cut)[cut])
    else:
        at = np.arange(len(values))
    order = np.argsort(-values[at], kind="stable")[:count]
    return [int(place) for place in at[order]]
