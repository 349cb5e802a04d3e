"""The chat template: messages to tokens, exactly as the base model was trained."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from jinja2 import TemplateError

from experts.generation import ExpertError
from experts.marks import without_marks

_ROLE = re.compile(r"^(?=(?:system|developer|user|assistant|tool)[ \t]*:)", re.M | re.I)


def render_prompt(tokenizer: Any, messages: Sequence[tuple[str, str]]) -> list[int]:  # noqa: ANN401
    """Token ids of a conversation of (role, text) pairs, ready for the assistant's answer.

    Texts hold no marks of turns (`experts.marks`). Models without a chat template get plain
    `role: text` lines, and lines inside a text that begin like these are indented. Where a
    template refuses system messages or two turns of one role in a row (Gemma, Mistral), they are
    joined to the user's.

    Raises `ExpertError` for a conversation that the template refuses even so.
    """
    specials = _specials(tokenizer)
    said = [(role, without_marks(text, specials)) for role, text in messages]
    if getattr(tokenizer, "chat_template", None):
        turns = [{"role": role, "content": text} for role, text in said]
        text = _applied(tokenizer, turns)
    else:
        lines = [f"{role}: {_ROLE.sub(' ', text)}" for role, text in said]
        text = "\n".join([*lines, "assistant:"])
    return list(tokenizer.encode(text, add_special_tokens=False))


def _applied(tokenizer: Any, turns: list[dict[str, str]]) -> str:  # noqa: ANN401
    def apply(said: list[dict[str, str]]) -> str:
        return str(tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True))

    try:
        return apply(turns)
    except TemplateError:
        try:
            return apply(_folded(turns))
        except TemplateError as error:
            raise ExpertError(f"the chat template refuses this conversation: {error}") from error


def _folded(turns: list[dict[str, str]]) -> list[dict[str, str]]:
    """The turns with those that are not the assistant's as the user's, and neighbours joined."""
    found: list[dict[str, str]] = []
    for turn in turns:
        role = "assistant" if turn["role"] == "assistant" else "user"
        if found and found[-1]["role"] == role:
            found[-1] = {"role": role, "content": f"{found[-1]['content']}\n\n{turn['content']}"}
        else:
            found.append({"role": role, "content": turn["content"]})
    return found


def _specials(tokenizer: Any) -> list[str]:  # noqa: ANN401
    added = tokenizer.added_tokens_decoder.values()
    named = {token.content for token in added if token.special} | set(tokenizer.all_special_tokens)
    # A mark of one character cannot be broken, one of blanks alone is no mark.
    return sorted(name for name in named if len(name.strip()) > 1)
