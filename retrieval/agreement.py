"""Agreement: whether a sentence and its evidence name the same numbers and names, and deny alike.

Two sentences may share nearly all words and most of their meaning, to a vector, and yet say
opposite things: 1971 for 1917, Vienna for Prague, "is not" for "is". These checks see only that.
"""

from __future__ import annotations

import re

from retrieval.words import content_words, words

SCOPE = 2
"""Content words behind a negation that it is taken to deny."""

_NUMBER = re.compile(r"\d+")
_NAME = re.compile(r"[^\W\d_](?:[\w'’.-]*\w)?")
_NEGATIONS = frozenset(
    """
    not no never none neither nor cannot without isnt wasnt arent werent dont doesnt didnt wont
    wouldnt cant couldnt shouldnt hasnt havent hadnt
    nicht kein keine keiner keinen keinem keines nie niemals weder ohne
    pas jamais aucun aucune sans nunca ningun ninguna ninguno sin jamas tampoco
    non mai nessun nessuno nessuna senza nao nenhum nenhuma sem
    не нет никогда ни без нельзя
    لا لم لن ليس ليست غير بدون नहीं न मत बिना niet geen nooit zonder inte ingen aldrig nie bez
    """.split()
)
_UNSPACED_NEGATION = re.compile("不|没|沒|未|无|無|非|ない|ません|なかっ|않|없|아니")
_APOSTROPHE = re.compile(r"(?<=n)['’](?=t\b)")


def numbers(text: str) -> frozenset[str]:
    """Return the runs of digits in `text`."""
    return frozenset(_NUMBER.findall(text))


def names(sentence: str) -> frozenset[str]:
    """Return the stems of the words that are written with a capital, but for the first word.

    In scripts without capitals there are none.
    """
    found = list(_NAME.finditer(sentence))
    inner = (match[0] for match in found[1:] if match[0][0].isupper() and len(match[0]) > 1)
    return frozenset(stem for name in inner for stem in content_words(name))


def denied(text: str) -> list[frozenset[str]]:
    """Return the stems that each negation in `text` stands before, `SCOPE` of them.

    A negation that nothing follows denies the word before it.
    """
    tokens = list(words(_APOSTROPHE.sub("", text)))
    return [
        frozenset(_content(tokens[place + 1 :])[:SCOPE] or _content(tokens[:place])[-1:])
        for place, token in enumerate(tokens)
        if token in _NEGATIONS or _UNSPACED_NEGATION.search(token)
    ]


def denies_alike(sentence: str, evidence: str) -> bool:
    """Return whether what one denies, where both name it, is denied by the other as well."""
    here, there = denied(sentence), denied(evidence)
    if not here and not there:
        return True
    said, read = content_words(sentence), content_words(evidence)
    return _covered(here, there, read) and _covered(there, here, said)


def _covered(
    denials: list[frozenset[str]], others: list[frozenset[str]], named: frozenset[str]
) -> bool:
    elsewhere = frozenset().union(*others)
    return all(scope & elsewhere or not scope & named for scope in denials)


def _content(tokens: list[str]) -> list[str]:
    # A word by itself, so that the order is kept.
    return [stem for token in tokens[: SCOPE * 4] for stem in content_words(token)]
