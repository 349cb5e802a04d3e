"""Guesses from a text's own repetitions."""

from __future__ import annotations

import random

from experts.lookup import Lookup


def last_time(tokens: list[int], size: int, most: int) -> list[int] | None:
    """By search: what stood behind the last earlier place of the latest `size` tokens."""
    latest = tokens[-size:]
    for start in range(len(tokens) - size - 1, -1, -1):
        if tokens[start : start + size] == latest:
            return tokens[start + size : start + size + most]
    return None


def test_the_guess_is_what_followed_the_last_time() -> None:
    dice = random.Random(3)
    for length in range(200):
        tokens = [dice.randrange(4) for _ in range(length)]
        lookup = Lookup(tokens[: length // 2])
        lookup.extend(tokens[length // 2 :])
        for most in (1, 4):
            by_three = last_time(tokens, 3, most) if length >= 3 else None
            by_two = last_time(tokens, 2, most) if length >= 2 else None
            assert lookup.guess(most, least_match=3) == (by_three or [])
            assert lookup.guess(most) == (by_three or by_two or [])


def test_nothing_is_guessed_where_nothing_repeats_itself() -> None:
    assert Lookup(range(50)).guess(4) == []
    assert Lookup().guess(4) == []
    assert Lookup([7]).guess(4) == []
