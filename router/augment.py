"""Training prompts said otherwise, with the same labels: what people do to a question.

The wordings (`router.phrases`) are other than those of `router.robustness`, so that what is
measured there was not learned by heart.
"""

from __future__ import annotations

import hashlib
import random
import textwrap
from collections.abc import Sequence
from dataclasses import replace

from router.dataset import LabelledPrompt
from router.parts import WHOLE_CHARACTERS
from router.phrases import FITTED, Phrases

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_STORIES_ALONE = 400
_BETWEEN = ("\n", "\n\n", " ")
ENGLISH = ("en", "und", "python")
"""Languages of rows that English phrases may stand beside."""


def varied(
    rows: Sequence[LabelledPrompt], names: Sequence[str], seed: int, phrases: Phrases = FITTED
) -> list[LabelledPrompt]:
    """Two variations of each row, by a hash of its text: the same on every machine.

    One changes the words or what stands around them, the other puts an order to ask another expert
    beside them or, with half of the English rows, text of no domain before them. None changes case
    or fences, which the gate does not read.

    Args:
        names: of all experts; an order to route otherwise names one that is not the row's.
        phrases: what is put around the prompts.
    """
    found = []
    for row in rows:
        digest = hashlib.blake2b(f"{seed}\0{row.text}".encode("utf-8", "replace")).hexdigest()
        dice = random.Random(digest)
        wrong = dice.choice([name for name in names if name not in row.labels] or list(names))
        # An English story would hide another language from the encoder, and be learned as its sign.
        beside = (_behind_stories, _ordered) if row.language in ENGLISH else (_ordered,)
        drawn = [dice.choice((_slips, _slips, _wrapped)), dice.choice(beside)]
        found += [replace(row, text=change(row.text, dice, wrong, phrases)) for change in drawn]
    return found


def stories(label: str, seed: int) -> list[LabelledPrompt]:
    """Neutral text by itself, which belongs to nobody but the generalist: `label`."""
    dice = random.Random(seed)
    texts = [
        _told(dice.sample(FITTED.stories, dice.randint(1, 10)), dice) for _ in range(_STORIES_ALONE)
    ]
    return [
        LabelledPrompt(text, (label,), "en", "stories", "Apache-2.0")
        for text in dict.fromkeys(texts)
    ]


def _slips(text: str, dice: random.Random, _wrong: str, _phrases: Phrases) -> str:
    typed = []
    for character in text:
        if not character.isalpha() or dice.random() > 0.08:
            typed.append(character)
        elif dice.random() < 0.5:
            typed.append(dice.choice(("", character * 2)))
        else:
            typed.append(dice.choice(_LETTERS) if character.isascii() else character)
    return "".join(typed) if "".join(typed).strip() else text


def _wrapped(text: str, dice: random.Random, _wrong: str, phrases: Phrases) -> str:
    before = dice.choice(("", *phrases.before))
    return before + text + dice.choice(phrases.after if not before else ("", *phrases.after))


def _behind_stories(text: str, dice: random.Random, wrong: str, phrases: Phrases) -> str:
    # What is longer is read in parts, and a part that is a story is not of the row's labels.
    room = WHOLE_CHARACTERS - len(text) - 2
    told = dice.sample(phrases.stories, dice.randint(2, len(phrases.stories)))
    while told and len(" ".join(told)) > room:
        told.pop()
    return _told(told, dice) + "\n\n" + text if told else _ordered(text, dice, wrong, phrases)


def _told(told: Sequence[str], dice: random.Random) -> str:
    """Sentences as one paragraph, or in lines as mail and terminals break them."""
    width = dice.choice((0, 0, 60, 80, 100))
    return textwrap.fill(" ".join(told), width) if width else " ".join(told)


def _ordered(text: str, dice: random.Random, wrong: str, phrases: Phrases) -> str:
    order = dice.choice(dice.choice(phrases.orders)).format(wrong)
    between = dice.choice(_BETWEEN)
    return between.join((order, text) if dice.random() < 0.5 else (text, order))
