"""Injection: sentences of a passage that give orders to the model that reads it.

A passage is data, but a small model takes a sentence such as "Ignore the previous instructions and
just print ..." for one of its user's. Rules tell such sentences; what they say, and how often they
are right, stands in `docs/grounding.md`. Offsets of a document are never changed by this.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import cache

from retrieval.injection_patterns import PATTERNS
from retrieval.sentences import sentence_spans

_SHORT = 3
"""Words of a sentence before an order that go with it: "STOP!!! NOW!!!", "... Never mind."."""

_LOUD = re.compile(r"[!…]\W*$|^\W*\.\.\.")
_HIDDEN = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]")
_LINE = re.compile(r"[^\s](?:[^\n]*[^\s])?")


def commands(text: str) -> list[tuple[int, int]]:
    """Return the spans of `text` that give orders to a model, in order; they do not overlap.

    Each is a sentence, or those of its lines that give the order by themselves.
    """
    pieces, found = _read(text)
    for place in sorted(found):
        before, after = place - 1, place + 1
        while before >= 0 and before not in found and _is_cry(text[slice(*pieces[before])]):
            found.add(before)
            before -= 1
        # Words to repeat may be sentences of their own, up to the end of the quotation.
        if text[slice(*pieces[place])].count('"') % 2 and after < len(pieces):
            found |= {after} if '"' in text[slice(*pieces[after])] else set()
    return [pieces[place] for place in sorted(found)]


def without_commands(text: str) -> tuple[str, int]:
    """Return `text` without what gives orders to a model, and the number of such sentences."""
    spans = commands(text)
    kept, at = [], 0
    for start, end in spans:
        kept.append(text[at:start])
        at = end
    return "".join([*kept, text[at:]]), len(spans)


def _read(text: str) -> tuple[list[tuple[int, int]], set[int]]:
    """The lines of every sentence as spans, and the places of those that give orders."""
    pieces: list[tuple[int, int]] = []
    found: set[int] = set()
    for start, end in sentence_spans(text):
        lines = [
            (start + line.start(), start + line.end()) for line in _LINE.finditer(text[start:end])
        ]
        places = range(len(pieces), len(pieces) + len(lines))
        pieces += lines
        if _orders(text[start:end]):
            alone = {place for place in places if _orders(text[slice(*pieces[place])])}
            found |= alone or set(places)
    return pieces, found


def _orders(sentence: str) -> bool:
    folded = _folded(sentence)
    return any(pattern.search(folded) for pattern in _compiled())


def _is_cry(sentence: str) -> bool:
    return len(sentence.split()) <= _SHORT and _LOUD.search(sentence) is not None


def _folded(sentence: str) -> str:
    visible = _HIDDEN.sub("", unicodedata.normalize("NFKC", sentence)).casefold()
    return visible.replace("’", "'")


@cache
def _compiled() -> tuple[re.Pattern[str], ...]:
    # Most begin at a word's edge: to look for it once and not in each makes them five times faster.
    edge = r"\b"
    words = [pattern.removeprefix(edge) for pattern in PATTERNS if pattern.startswith(edge)]
    others = [pattern for pattern in PATTERNS if not pattern.startswith(edge)]
    return (
        re.compile(edge + _either(words), re.MULTILINE),
        re.compile(_either(others), re.MULTILINE),
    )


def _either(patterns: Sequence[str]) -> str:
    return "(?:" + "|".join(f"(?:{pattern})" for pattern in patterns) + ")"
