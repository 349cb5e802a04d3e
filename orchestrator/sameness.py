"""When two answers are the same, and what two questions must share before they are compared."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter

SAME = 0.9
"""Least F1 of the words of two answers that are taken to say the same."""

_MARK = re.compile(r"\s?\[\d+\]")
_WORD = re.compile(r"\w+")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_NEGATIONS = frozenset(
    "not no never none cannot without neither nor nicht kein keine nie ohne ne pas jamais sans "
    "ningún nunca sin não nunca sem non mai senza не нет без 不 没".split()
)


def facts(text: str) -> str:
    """The numbers of a text in their order, and how many of its words deny."""
    return f"{' '.join(_NUMBER.findall(_plain(text)))}|{_denials(_words(text))}"


def sense(text: str) -> str:
    """A name for what an answer says: equal where only case, punctuation and marks differ."""
    return hashlib.sha256(" ".join(_words(_MARK.sub("", text))).encode()).hexdigest()[:32]


def same_answer(one: str, other: str) -> bool:
    """Whether two answers are the same: their words, but for a few, and all their facts."""
    bare = [_MARK.sub("", text) for text in (one, other)]
    left, right = (_words(text) for text in bare)
    if left == right:
        return True
    if not left or not right or facts(bare[0]) != facts(bare[1]):
        return False
    shared = sum((Counter(left) & Counter(right)).values())
    return 2 * shared / (len(left) + len(right)) >= SAME


def _words(text: str) -> list[str]:
    return _WORD.findall(_plain(text))


def _denials(words: list[str]) -> int:
    # In English contractions the apostrophe cuts the "t" off.
    return sum(word in _NEGATIONS or word == "t" for word in words)


def _plain(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()
