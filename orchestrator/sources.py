"""Sources: what of the passages an expert is shown, and how much of it fits its context."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.grounding import LONGEST_TITLE, frame
from orchestrator.prompt_size import size
from retrieval.excerpt import excerpt
from retrieval.injection import without_commands
from retrieval.merging import merged
from retrieval.passage import Passage

_AROUND = 24
"""Tokens of the tags of a source."""

_LEAST_TOKENS = 48
"""A source that would be cut to less is left out."""

_RULES = size(frame(()))


@dataclass(frozen=True)
class Sources:
    """Passages with what is shown of each, title and text; best first.

    `withheld` is the number of sentences that were left out because they give orders, `unfit` that
    of passages for which there was no room.
    """

    passages: tuple[Passage, ...] = ()
    shown: tuple[tuple[str, str], ...] = ()
    withheld: int = 0
    unfit: int = 0

    def fewer(self) -> Sources:
        """The better half of them, none of one."""
        left = len(self.passages) // 2
        return Sources(self.passages[:left], self.shown[:left], self.withheld, self.unfit)

    @classmethod
    def of(
        cls, passages: Sequence[Passage], question: str, room: int | None, longest: int
    ) -> Sources:
        """What fits into `room` tokens (None: no bound), each cut to `longest` characters.

        Passages are cut at the ends of sentences, to those that the question is about.
        """
        left = None if room is None else room - _RULES
        kept: list[tuple[Passage, tuple[str, str]]] = []
        withheld = unfit = 0
        for passage in merged(passages):
            title, text, orders = _harmless(passage)
            withheld += orders
            text = excerpt(text, question, longest)
            if left is not None and text:
                text, left = _fitted(title, text, question, left)
                unfit += not text
            if text:
                kept.append((passage, (title, text)))
        return cls(tuple(p for p, _ in kept), tuple(pair for _, pair in kept), withheld, unfit)


def _harmless(passage: Passage) -> tuple[str, str, int]:
    title, in_title = without_commands(passage.title[:LONGEST_TITLE])
    text, in_text = without_commands(passage.text)
    return title, text.strip(), in_title + in_text


def _fitted(title: str, text: str, question: str, left: int) -> tuple[str, int]:
    """What of the text fits, "" where too little does, and the tokens that are left then."""
    room = left - _AROUND - size(title)
    needed = size(text)
    if needed > room:
        text = excerpt(text, question, len(text) * room // needed) if room > 0 else ""
        needed = size(text)
        if needed < _LEAST_TOKENS:
            return "", left
    return text, left - _AROUND - size(title) - needed
