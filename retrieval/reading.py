"""How well an encoder reads a text, by what its tokenizer makes of it.

An encoder knows the words that its tokenizer keeps whole, or cuts into parts that mean something. A
text in a language that it never learned falls into single letters and unknown pieces, and its
vector says little; in a fusion it should say little, too.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable

from tokenizers import Encoding

Reads = Callable[[str], float]
"""How well an encoder reads a text, in 0..1."""

LEAST = 0.001
"""Trust in an encoder that cannot read a text at all: where no word matches it still ranks."""

_TELLING = 3
_TELLING_UNSPACED = 2
_CHINESE = re.compile("[\u3400-\u9fff]")
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\uac00-\ud7af]")


def legible(encoding: Encoding, text: str, unknown: str | None) -> float:
    """Return the share of a text's letters that lie in telling pieces, 1 without any letter.

    Telling is a whole word and a piece of three letters; of two where words are written without
    spaces, and any Chinese character that is known. `unknown` is the piece that stands for others.
    """
    pieces = Counter(encoding.word_ids)
    letters, telling = 0, 0
    rows = zip(encoding.offsets, encoding.word_ids, encoding.tokens, strict=True)
    for (start, end), word, token in rows:
        count = sum(map(_is_letter, text[start:end]))
        letters += count
        if token != unknown and (pieces[word] == 1 or _tells(text[start:end], count)):
            telling += count
    return telling / letters if letters else 1.0


def trusted(weight: float, reads: float) -> float:
    """Return the weight of meaning for a question that the encoder reads so well.

    The odds of meaning against words are multiplied by `reads`: a weight of 0 or 1 stays what it
    is. (Of powers 0 to 4 of it the first did best on tuning questions in ten languages.)
    """
    trust = max(reads, LEAST)
    odds = weight * trust
    return odds / (odds + (1.0 - weight))


def _tells(piece: str, letters: int) -> bool:
    if _CHINESE.search(piece):
        return True
    return letters >= (_TELLING_UNSPACED if _UNSPACED.search(piece) else _TELLING)


def _is_letter(character: str) -> bool:
    return character.isalpha() or not character.isascii()
