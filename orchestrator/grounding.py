"""Grounding: passages into the conversation, before the last question."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.request import Role
from retrieval.passage import Passage

_FRAME = "Use these passages if they help.\n\n{passages}\n\nQuestion: {question}"


def ground(
    messages: Sequence[tuple[str, str]], passages: Sequence[Passage], longest: int
) -> tuple[tuple[str, str], ...]:
    """The conversation with the passages before its last user message.

    They stand in the user's turn and not in a system message, so that the system message stays the
    one that the experts were trained with. Passages are cut to `longest` characters.
    """
    grounded = list(messages)
    if passages:
        shown = "\n\n".join(
            f"[{n}] {p.title}\n{p.text[:longest]}" for n, p in enumerate(passages, start=1)
        )
        at = max(i for i, (role, _) in enumerate(messages) if role == Role.USER)
        question = _FRAME.format(passages=shown, question=messages[at][1])
        grounded[at] = (Role.USER, question)
    return tuple((str(role), text) for role, text in grounded)
