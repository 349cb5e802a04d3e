"""The chat template: messages to tokens, exactly as the base model was trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def render_prompt(tokenizer: Any, messages: Sequence[tuple[str, str]]) -> list[int]:  # noqa: ANN401
    """Token ids of a conversation of (role, text) pairs, ready for the assistant's answer.

    Models without a chat template get plain `role: text` lines.
    """
    if getattr(tokenizer, "chat_template", None):
        turns = [{"role": role, "content": text} for role, text in messages]
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    else:
        lines = [f"{role}: {text}" for role, text in messages]
        text = "\n".join([*lines, "assistant:"])
    return list(tokenizer.encode(text, add_special_tokens=False))
