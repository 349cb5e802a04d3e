"""Words of a text: for the BM25 index, and as evidence that a passage supports a sentence.

Words are compatibility-normalised, casefolded and stripped of Latin accents. Scripts written
without spaces (Chinese, Japanese, Thai, ...) and Hangul give overlapping pairs of characters,
the usual index unit where no dictionary is at hand.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from itertools import islice, pairwise

_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u3005-\u3007\u3040-\u30ff"
    "\u3130-\u318f\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
    "\U00020000-\U0003ffff"
)
# Vowel signs of the Indic scripts are no letters to `re`, yet belong to the word.
_INDIC = "\u0900-\u0963\u0966-\u0dff"
_WORD = re.compile(
    rf"(?P<pairs>[{_UNSPACED}]+)|(?P<word>(?:[^\W_{_UNSPACED}]|[{_INDIC}])+(?:\+\+|#)?)"
)
_ACCENT = re.compile("[\u0300-\u036f]")

_ENGLISH_STOPS = frozenset(
    """
    a about above after again against all also am an and any are as at be because been before
    being below between both but by can could did do does doing down during each either else
    etc few for from further had has have having he her here hers him his how however i if in
    into is it its itself just let like may me might more most must my no nor not of off on once
    one only or other our out over own per same shall she should so some such than that the
    their them then there therefore these they this those through thus to too under until up
    upon us use used using very via was we were what when where whether which while who whom
    whose why will with within without would you your
    """.split()
)
# German, Spanish, French, Italian and Portuguese; without "mit", "os", "die" and others that name
# things in English.
_STOPS = _ENGLISH_STOPS | frozenset(
    """
    al aus bei das dem den der des du ein eine einem einen einer es fur hat ich im ist nach
    nicht oder sich sie sind und von werden wie wird zu zum zur con como cual de del el ella
    en entre esta este ha hay la las lo los mas para pero por que se ser si sobre su sus un
    una uno y au aux avec ce ces cette dans elle est et il ils je le les leur mais ne nous ou
    par pas plus pour qu qui sa sont sur une vous che chi dal della di e gli nel non ho ao da
    em foi na nas nos o pela pelo uma voce
    """.split()
)
_SUFFIXES = ("ations", "ation", "ions", "ion", "ings", "ing", "edly", "ed", "es", "s", "ly", "e")
_SHORTEST_STEM = 3


def words(text: str) -> Iterator[str]:
    """Yield the words of `text` in order, folded as the module says; repeats are kept."""
    for match in _WORD.finditer(_fold(text)):
        word = match["word"]
        yield from (word,) if word else _pairs(match["pairs"])


def query_words(text: str, limit: int) -> list[str]:
    """Return up to `limit` distinct words to search for, without stop words if others are left."""
    distinct = list(dict.fromkeys(words(text)))
    telling = [word for word in distinct if word not in _ENGLISH_STOPS]
    return (telling or distinct)[:limit]


def query_terms(text: str, limit: int) -> list[str]:
    """Return what the word index is asked for: each of `query_words` twice, and pairs once.

    A pair is two neighbours of which one tells something, and matches where they are neighbours in
    a passage; at half the weight of a word it tells passages that use words alike from such that
    have them scattered. Of scripts without spaces it is three characters.
    """
    found = query_words(text, limit)
    row = list(islice(words(text), 2 * limit))
    pairs = [
        f"{left} {right}"
        for left, right in pairwise(row)
        if left not in _ENGLISH_STOPS or right not in _ENGLISH_STOPS
    ]
    return [*found, *found, *dict.fromkeys(pairs[:limit])]


def content_words(text: str) -> frozenset[str]:
    """Return the set of stems of the words in `text` that carry content; numbers stay whole."""
    return frozenset(_stem(word) for word in words(text) if word not in _STOPS)


def _fold(text: str) -> str:
    decomposed = unicodedata.normalize("NFKD", text).casefold()
    return unicodedata.normalize("NFKC", _ACCENT.sub("", decomposed))


def _pairs(run: str) -> Iterator[str]:
    if len(run) == 1:
        yield run
    for left, right in zip(run, run[1:], strict=False):
        yield left + right


@lru_cache(maxsize=16384)
def _stem(word: str) -> str:
    if not word.isascii() or not word.isalpha():
        return word
    if word.endswith("ies") and len(word) > _SHORTEST_STEM + 2:
        return word[:-3] + "y"
    for suffix in _SUFFIXES:
        stem = word.removesuffix(suffix)
        if stem != word and len(stem) >= _SHORTEST_STEM and not word.endswith(("ss", "us", "is")):
            return _undoubled(stem) if suffix in ("ing", "ed", "ings") else stem
    return word


def _undoubled(stem: str) -> str:
    if len(stem) > _SHORTEST_STEM and stem[-1] == stem[-2] and stem[-1] not in "aeiouls":
        return stem[:-1]
    return stem
