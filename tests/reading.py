"""A job that wants its tokens read and nothing else."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from experts.arena import RowCache
from experts.job import Feed, Found, Job, Row, Terms


class Reading(Job):
    """Keeps the logits behind its last token."""

    logits: torch.Tensor | None = None

    @property
    def longest(self) -> int:
        return len(self.tokens)

    def feeds(self) -> list[Feed]:
        last = len(self.tokens)
        return [Feed(row, last, (last - 1,)) for row in self.rows if row.cache.length < last]

    def take(self, found: Sequence[Found]) -> None:
        for one in found:
            if one.positions:
                self.logits = one.logits[-1]
                self.done = True


def job(tokens: int, done: int = 0, rows: int = 1, prompt: int = 0, **terms: object) -> Reading:
    """A reading of `tokens` tokens, of which `done` lie in the cache; an answer behind `prompt`."""
    caches = [RowCache(0, tokens, done) for _ in range(rows)]
    made = Reading("", range(tokens), [Row({}, 1.0, c) for c in caches], lambda _event: None)
    made.prompt = prompt or tokens
    made.terms = Terms(**terms)  # type: ignore[arg-type]
    return made
