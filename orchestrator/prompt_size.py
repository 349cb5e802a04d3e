"""How many tokens a prompt may have, told from its characters: the gateway has no tokenizer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

TURN = 8
"""Tokens that a chat template puts around a message, at most."""

# First code point of each range and the tokens of one of its characters. An English vocabulary of
# 49 thousand pieces takes no more on 95 of 100 passages of thirteen languages and of source code.
_COSTS = (
    (0x00, 0.42),
    (ord("0"), 1.0),
    (ord("9") + 1, 0.42),
    (0x80, 1.1),
    (0x370, 0.9),
    (0x590, 1.05),
    (0x900, 1.2),
    (0x2000, 1.1),
    (0x2E80, 2.0),
    (0x10000, 4.0),
)
_STARTS = np.array([start for start, _ in _COSTS])
_TOKENS = np.array([tokens for _, tokens in _COSTS])


def size(text: str) -> int:
    """Tokens that a text is likely not to exceed; an expert's tokenizer has the last word."""
    points = np.frombuffer(text.encode("utf-32-le", "replace"), dtype="<u4")
    places = np.searchsorted(_STARTS, points, side="right") - 1
    return int(np.ceil(round(float(_TOKENS[places].sum()), 6)))


def conversation_size(messages: Sequence[tuple[str, str]]) -> int:
    """Tokens that a conversation is likely not to exceed, with the marks between its turns."""
    return TURN + sum(TURN + size(text) for _, text in messages)
