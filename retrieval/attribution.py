"""Puts citation marks into an answer while it is written: at each sentence end, its passage.

Small models seldom cite, and often wrongly, so marks are not asked of them. Every sentence
that a passage supports gets the number of that passage behind it; no support, no mark. Marks
that the model wrote are taken out first, so each mark in prose has its `Citation`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from retrieval.markdown import Kind, MarkdownReader
from retrieval.marks import MarkStripper
from retrieval.passage import Passage
from retrieval.sentences import CLOSED_STOPS, CLOSERS, STOPS, is_sentence_end
from retrieval.support import Evidence, Support, Tally
from retrieval.words import content_words

_UNMARKED_LINE = re.compile(
    r"[ \t]{0,3}(?:#{1,6}[ \t]|\|)|(?: {4,}|\t)(?![ \t]*(?:[-*+•]|\d+[.)]) )"
)
_LEAD = re.compile(r"[ \t>]*(?:(?:[-*+•]|\d{1,3}[.)])[ \t]+)?")
_QUESTIONS_AND_LEADS = "?？:："
_PAIRED = "*_\"'"
_ASSENTS = frozenset(
    "yes yeah ok okay no ja nein si oui sim sì да нет نعم हां हाँ 是 是的 はい".split()
)
_MODEL_NUMBERS = 20
"""A bracketed number up to this after a plain word is taken for a mark that the model wrote."""


@dataclass(frozen=True, slots=True)
class Citation:
    """One mark of the final text and its evidence.

    `start_index` and `end_index` are offsets (code points) of the mark itself, "[1]", in the
    final text; `start` and `end` those of the supporting sentences in the document's text;
    `score` is the support in 0..1. `page` and `line` are where the supporting sentences begin, as
    far as that is known; `sha256` is that of the document's original bytes.
    """

    start_index: int
    end_index: int
    title: str
    url: str
    collection: str
    passage_id: str
    start: int
    end: int
    score: float
    page: int | None = None
    line: int | None = None
    sha256: str = ""


class Attributor:
    """Marks one answer. Feed it the deltas and send on what it returns; flush at the end.

    The result does not depend on how the text is cut into deltas. Only white space after a
    stop, a line break and a half-written mark are held back, until the next character.
    Marks are numbered from 1 in the order of first citation. Not thread-safe.
    """

    def __init__(
        self,
        passages: Sequence[Passage],
        encoder: Callable[[Sequence[str]], npt.NDArray[np.float32]],
        question: str = "",
    ) -> None:
        """`encoder` maps n texts to unit vectors [n, d]; it is called at sentence ends only.

        `question` is what is answered; without it answers of a word or two are not checked.
        """
        self._passages = passages
        self._support = Support(passages, encoder, question)
        self._tally = Tally()
        self._reader = MarkdownReader()
        self._stripper = MarkStripper(max(len(passages), _MODEL_NUMBERS), len(passages))
        self._numbers: dict[int, int] = {}
        self._citations: list[Citation] = []
        self._sentence = ""
        self._masked = ""
        self._line = ""
        self._gap = ""
        self._length = 0
        self._last = ""

    @property
    def citations(self) -> tuple[Citation, ...]:
        """The citations of the text returned so far, in its order."""
        return tuple(self._citations)

    @property
    def tally(self) -> Tally:
        """How many sentences of the text so far could be checked, and how many are supported."""
        return self._tally

    def feed(self, delta: str) -> str:
        """Take the next piece of the answer and return the text that is certain now."""
        return "".join(
            self._advance(piece, kind)
            for character in delta
            for piece, kind in self._stripper.read(character, self._reader.read(character))
        )

    def flush(self) -> str:
        """Return the rest, with the mark of the last sentence; the answer is complete."""
        rest = "".join(self._advance(piece, kind) for piece, kind in self._stripper.flush())
        return rest + self._mark() + self._release_gap()

    def _advance(self, character: str, kind: Kind) -> str:
        if kind is Kind.FENCED_CODE:
            text = self._mark() + self._release_gap() + self._emit(character)
            self._line = "" if character == "\n" else self._line + character
            return text
        if character.isspace():
            return self._read_space(character)
        mark = self._mark() if self._ends_before(character, kind) else ""
        text = mark + self._release_gap() + self._emit(character)
        self._sentence += character
        self._masked += character if kind is Kind.PROSE else "x"
        self._line += character
        return text

    def _read_space(self, character: str) -> str:
        if character != "\n" and not self._gap and not self._is_stopped():
            self._sentence += character
            self._masked += character
            self._line += character
            return self._emit(character)
        self._gap += character
        if self._gap.count("\n") < 2:
            return ""
        return self._mark() + self._release_gap()

    def _is_stopped(self) -> bool:
        return self._masked.rstrip(CLOSERS)[-1:] in tuple(STOPS)

    def _ends_before(self, character: str, kind: Kind) -> bool:
        if "\n" in self._gap:
            return not character.islower()
        if not self._gap and kind is Kind.PROSE and self._closes(character):
            return False
        return is_sentence_end(self._masked, self._gap, character)

    def _closes(self, character: str) -> bool:
        if character in _PAIRED:
            return character in self._sentence
        return character in STOPS or character in CLOSERS

    def _mark(self) -> str:
        sentence, self._sentence, self._masked = self._sentence, "", ""
        sentence = _LEAD.sub("", sentence.strip(), count=1)
        stopped = sentence.rstrip(CLOSERS)[-1:]
        if not stopped or stopped in _QUESTIONS_AND_LEADS or _UNMARKED_LINE.match(self._line):
            return ""
        if not self._passages or not content_words(sentence) - _ASSENTS:
            return ""
        evidence = self._support.best(sentence)
        self._tally = self._tally.counting(supported=evidence is not None)
        return self._cite(evidence, stopped) if evidence is not None else ""

    def _cite(self, evidence: Evidence, stopped: str) -> str:
        passage = self._passages[evidence.place]
        number = self._numbers.setdefault(evidence.place, len(self._numbers) + 1)
        joined = self._last.isspace() or stopped in CLOSED_STOPS
        space = self._emit("" if joined else " ")
        start = self._length
        mark = self._emit(f"[{number}]")
        self._citations.append(
            Citation(
                start_index=start,
                end_index=self._length,
                title=passage.title,
                url=passage.url,
                collection=passage.collection,
                passage_id=passage.passage_id,
                start=evidence.start,
                end=evidence.end,
                score=evidence.score,
                page=passage.page,
                line=_line(passage, evidence.start),
                sha256=passage.sha256,
            )
        )
        return space + mark

    def _release_gap(self) -> str:
        gap, self._gap = self._gap, ""
        if "\n" in gap:
            self._line = gap.rpartition("\n")[2]
        else:
            self._line += gap
        if self._sentence:
            self._sentence += gap
            self._masked += gap
        return self._emit(gap)

    def _emit(self, text: str) -> str:
        self._length += len(text)
        self._last = text[-1:] or self._last
        return text


def _line(passage: Passage, start: int) -> int | None:
    if passage.line is None:
        return None
    return passage.line + passage.text.count("\n", 0, start - passage.start)
