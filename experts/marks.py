"""Marks that open or close turns in chat templates, broken where they stand in what somebody wrote.

What somebody wrote never becomes a turn: a space after a mark's first character makes it the words
that it is, `<|im_start|>` becomes `< |im_start|>`. Marks are the special tokens of a base and what
templates of other families put around turns, since a model may know those from its training, too.
`<s>` and `</s>`, which HTML strikes text out with, are marks only where a base says so.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

_KNOWN = (
    r"<\|\w{1,40}\|>",  # ChatML, Llama 3, Phi, Zephyr, Command R, Harmony
    r"<｜[\w▁ ]{1,40}｜>",  # DeepSeek
    r"\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_RESULTS|TOOL_CALLS)\]",  # Mistral
    r"<</?SYS>>",  # Llama 2
    r"</?(?:start|end)_of_turn>",  # Gemma
)


def without_marks(text: str, specials: Sequence[str] = ()) -> str:
    """Return the text with the marks in it broken: those of known templates, and `specials`."""
    return _marks(tuple(specials)).sub(lambda found: f"{found[0]} ", text)


@lru_cache(maxsize=16)
def _marks(specials: tuple[str, ...]) -> re.Pattern[str]:
    ways = (*(re.escape(name) for name in specials), *_KNOWN)
    # Looking ahead finds marks that overlap, too.
    return re.compile("(?=(?:" + "|".join(ways) + "))(?s:.)")
