"""Grounding: passages into the conversation, as its system message."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.request import Role
from retrieval.passage import Passage

_FRAME = "Answer in full sentences from these passages.\n\n{passages}"


def ground(
    messages: Sequence[tuple[str, str]], passages: Sequence[Passage], longest: int
) -> tuple[tuple[str, str], ...]:
    """The conversation with the passages in its system message, behind the caller's own words.

    In the user's turn small experts take them for the text of an exercise, whose answers in their
    training data are a bare Yes or No. Passages are cut to `longest` characters.
    """
    if not passages:
        return tuple(messages)
    shown = "\n\n".join(f"{p.title}\n{p.text[:longest]}" for p in passages)
    frame = _FRAME.format(passages=shown)
    role, text = messages[0]
    if role == Role.SYSTEM:
        grounded = ((role, f"{text}\n\n{frame}"), *messages[1:])
    else:
        grounded = ((str(Role.SYSTEM), frame), *messages)
    return grounded
