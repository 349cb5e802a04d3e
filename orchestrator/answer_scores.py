"""How close an answer is to a known one: SQuAD's word F1, for any script."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

_MARK = re.compile(r"\s*\[\d+\]")
_ARTICLES = frozenset({"a", "an", "the"})
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_UNIT = re.compile(rf"[{_UNSPACED}]|[^\s{_UNSPACED}]+")


def unmarked(answer: str) -> str:
    """Return an answer without its `[n]` marks."""
    return _MARK.sub("", answer)


def units(text: str) -> list[str]:
    """Return what is compared: words in small letters, without punctuation and English articles.

    Where words are written without spaces (Chinese, Japanese, Thai) it is the characters.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    # SQuAD drops punctuation without a trace, so that "U.S." and "US" are one word.
    kept = "".join(c for c in folded if unicodedata.category(c)[0] not in "PS")
    return [unit for unit in _UNIT.findall(kept) if unit not in _ARTICLES]


def f1(answer: str, known: str) -> float:
    """Return the harmonic mean of precision and recall of the answer's units, in 0..1.

    Two texts without any unit agree.
    """
    said, wanted = units(answer), units(known)
    if not said or not wanted:
        return float(said == wanted)
    shared = (Counter(said) & Counter(wanted)).total()
    return 2.0 * shared / (len(said) + len(wanted))


def holds(text: str, known: str) -> bool:
    """Whether the units of a known answer occur in a text one behind the other."""
    said, wanted = units(text), units(known)
    if not wanted:
        return False
    places = range(len(said) - len(wanted) + 1)
    return any(said[at : at + len(wanted)] == wanted for at in places)
