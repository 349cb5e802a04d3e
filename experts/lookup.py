"""Guesses of the next tokens from a text's own repetitions (prompt lookup, Saxena 2023)."""

from __future__ import annotations

from collections.abc import Iterable

_SIZES = (3, 2)


class Lookup:
    """What followed the last time that the latest tokens of a text stood in it."""

    def __init__(self, tokens: Iterable[int] = ()) -> None:
        self._tokens: list[int] = []
        self._behind: dict[tuple[int, ...], int] = {}
        self._found: dict[int, int | None] = {}
        self.extend(tokens)

    def extend(self, tokens: Iterable[int]) -> None:
        """The text goes on."""
        for token in tokens:
            self._tokens.append(token)
            for size in _SIZES:
                if len(self._tokens) >= size:
                    latest = tuple(self._tokens[-size:])
                    self._found[size] = self._behind.get(latest)
                    self._behind[latest] = len(self._tokens)

    def guess(self, most: int, least_match: int = 2) -> list[int]:
        """At most `most` tokens that may come next; none where nothing repeats itself.

        Args:
            least_match: latest tokens that must have stood together before, 2 or 3.
        """
        for size in _SIZES:
            place = self._found.get(size)
            if size >= least_match and place is not None:
                return self._tokens[place : place + most]
        return []
