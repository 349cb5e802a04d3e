"""A weightless expert for tests of your own: it answers with the words of the question.

It has the face of `LocalExperts` and `RemoteExpert`, needs no model, and is deterministic: the
answer is the last user message, cut to `max_tokens` words. Never part of a configuration.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator

from experts.generation import (
    Chunk,
    ExpertError,
    FinishReason,
    Generation,
    Health,
    Score,
    Scoring,
    Usage,
)


class EchoExpert:
    """Echoes; `fails` makes every request raise, as a broken expert would."""

    def __init__(self, name: str, *, fails: bool = False) -> None:
        self.name, self.fails = name, fails
        self.requests: list[Generation] = []

    async def generate(self, request: Generation) -> AsyncGenerator[Chunk, None]:
        """Stream the last message word by word."""
        self.requests.append(request)
        if self.fails:
            raise ExpertError(f"{self.name}: told to fail")
        words = request.messages[-1][1].split()
        said = words[: request.sampling.max_tokens]
        for number, word in enumerate(said):
            yield Chunk(word if number == 0 else f" {word}")
        cut = len(said) < len(words)
        reason = FinishReason.LENGTH if cut else FinishReason.STOP
        yield Chunk("", finish_reason=reason, usage=Usage(len(words), len(said)))

    async def score(self, request: Scoring) -> Score:
        """One nat a word."""
        words = len(request.text.split())
        return Score(-float(words), words, len(request.text.encode()))

    async def health(self) -> Health:
        """Always idle."""
        return Health((self.name,), "none", 0, 0, os.getpid())

    def check_health(self) -> None:
        """Never ill."""
