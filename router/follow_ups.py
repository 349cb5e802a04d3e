"""Prompts with a short message behind them ("and now?"): who was asked stays the one to ask."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence

from router.augment import ENGLISH
from router.dataset import LabelledPrompt
from router.evaluation import Reading, stacked
from router.features import Encoder, featurize
from router.parts import WHOLE_CHARACTERS
from router.phrases import FITTED

SHARE = 0.3
"""Of the prompts, those that are read once more with something said after them."""

Followed = tuple[LabelledPrompt, tuple[str, str]]
"""Whose labels the last message has, and what one person says, one after the other."""


def followed(rows: Sequence[LabelledPrompt], seed: int) -> list[Followed]:
    """Return conversations that begin with a share of the rows: the same on every machine.

    A follow-up is in the row's language. Rows of several parts and those in languages without
    follow-ups begin none.
    """
    found: list[Followed] = []
    for row in rows:
        language = "en" if row.language in ENGLISH else row.language
        known = FITTED.follow_ups.get(language, ())
        if not known or len(row.text) > WHOLE_CHARACTERS:
            continue
        digest = hashlib.blake2b(f"{seed}\0next\0{row.text}".encode("utf-8", "replace"))
        dice = random.Random(digest.hexdigest())
        if dice.random() >= SHARE:
            continue
        found.append((row, (row.text, dice.choice(known))))
    return found


def read_followed(conversations: Sequence[Followed], encoder: Encoder) -> Reading:
    """Read each as a conversation of two messages of the user."""
    return stacked(
        featurize([("user", text) for text in texts], encoder).joined()
        for _, texts in conversations
    )
