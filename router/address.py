"""Lines that name an expert: "Route this to the legal expert." says nothing of what is asked.

Above or below a short question such a line outweighs it. So the rest is judged first, and the line
is read only where the rest leaves open who is meant (`Router.read`): "I write Perl." helps to
understand "How do I join two lists?", and nothing makes a recipe a matter of law.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Set

LONGEST_LINE = 200
"""Characters of a line that may be left aside; what is longer says more than who is meant."""

_WORD = re.compile(r"[\w.-]+")
_PART = re.compile(r"[^\W_]+")
_LINES = re.compile(r"\n\s*")
_ASKS = ("?", "？", "؟")


def spoken(names: Iterable[str]) -> frozenset[str]:
    """Return names as they are looked up in a text, whatever its case."""
    return frozenset(name.casefold() for name in names)


def without_address(text: str, names: Set[str]) -> str:
    """Return a trimmed text without the lines at either end that name an expert.

    `names` come from `spoken`. A line that asks something stays, and so does one that stands alone.
    """
    spans = _spans(text)
    first, last = 0, len(spans) - 1
    while first < last and _names_one(text[slice(*spans[first])], names):
        first += 1
    while last > first and _names_one(text[slice(*spans[last])], names):
        last -= 1
    return text[spans[first][0] : spans[last][1]]


def _spans(text: str) -> list[tuple[int, int]]:
    breaks = [found.span() for found in _LINES.finditer(text)]
    starts = [0, *(end for _, end in breaks)]
    ends = [*(start for start, _ in breaks), len(text)]
    return list(zip(starts, ends, strict=True))


def _names_one(line: str, names: Set[str]) -> bool:
    if len(line) > LONGEST_LINE or line.rstrip().endswith(_ASKS):
        return False
    folded = line.casefold()
    words = {word.strip(".-") for word in _WORD.findall(folded)}
    return not names.isdisjoint(words | set(_PART.findall(folded)))
