"""Which passage supports a sentence: shared words first, then similarity of meaning.

A sentence is compared with every sentence, and every two neighbouring sentences, of the
passages. Words are cheap and decide first; only the few windows that share enough words are
encoded. The thresholds were chosen on the even questions of three public collections (legal
rules, programming FAQ, encyclopaedia; five passages each) and measured on the odd ones: marked
were 119 of 119 verbatim sentences, 97 % of 117 with a quarter of the words left out and the rest
rearranged, 80 % of 45 statements made of question and answer, and 2.5 % of 400 sentences on the
same subject from other documents, some of which say the same. Words and vectors do not see a
negation or a swapped name; a sentence in another language than its passage is not marked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from retrieval.agreement import denies_alike, names, numbers
from retrieval.passage import Passage
from retrieval.sentences import sentence_spans
from retrieval.words import content_words, words

LEAST_WORDS = 3
"""Content words of a sentence that stands for itself; with fewer it is read as a bare answer."""

LEAST_OVERLAP = 0.5
"""Least share of the sentence's content words that the window must hold."""

LEAST_SIMILARITY = 0.5
"""Least cosine between sentence and window."""

LEAST_SUPPORT = 0.65
"""Least mean of overlap and similarity: the score of a citation."""

COMPARED = 4
"""Windows with the largest overlap that are compared by meaning."""

CERTAIN = 0.85
"""Overlap from which words alone decide: a vector would only repeat it."""

LEAST_ASKED = 0.3
"""Least share of the question's content words in the sentence that holds a bare answer."""

Encode = Callable[[Sequence[str]], npt.NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Evidence:
    """Passage number `place` supports a sentence by its document's text[start:end]."""

    place: int
    start: int
    end: int
    score: float


@dataclass(frozen=True, slots=True)
class Tally:
    """How many sentences of an answer could be checked, and how many of them are supported."""

    sentences: int = 0
    supported: int = 0

    def counting(self, *, supported: bool) -> Tally:
        """Return the tally after one more sentence."""
        return Tally(self.sentences + 1, self.supported + supported)


@dataclass(frozen=True, slots=True)
class _Window:
    place: int
    start: int
    end: int
    text: str
    words: frozenset[str]
    numbers: frozenset[str]


class Support:
    """Finds the passage that supports a sentence; encodes only what has to be compared."""

    def __init__(self, passages: Sequence[Passage], encoder: Encode, question: str = "") -> None:
        """`encoder` maps n texts to unit vectors [n, d]; nothing is computed until needed.

        With the `question` a bare answer ("Denver Broncos.") can be checked as well.
        """
        self._passages = passages
        self._encoder = encoder
        self._question = question
        self._vectors: dict[str, npt.NDArray[np.float32]] = {}

    def best(self, sentence: str) -> Evidence | None:
        """Return the best evidence for `sentence`, or None where no passage supports it.

        A window that lacks a number of the sentence, whose passage lacks a name of it, or that
        denies what the sentence says, is none.
        """
        stems = content_words(sentence)
        if len(stems) < LEAST_WORDS:
            return self._bare(sentence, stems) if stems and self._question else None
        closest = [
            (overlap, window)
            for overlap, window in self._closest(stems, sentence)
            if denies_alike(sentence, window.text)
        ][:COMPARED]
        if not closest:
            return None
        if closest[0][0] >= CERTAIN:
            overlap, window = closest[0]
            return Evidence(window.place, window.start, window.end, overlap)
        return self._judged(sentence, closest)

    def _bare(self, answer: str, stems: frozenset[str]) -> Evidence | None:
        """The window that holds a bare answer word for word, and most of what was asked."""
        asked = content_words(self._question) - stems
        phrase = " ".join(words(answer))
        holding = [
            (len(asked & window.words) / max(1, len(asked)), window)
            for window in self._windows
            if f" {phrase} " in f" {' '.join(words(window.text))} "
        ]
        holding.sort(key=lambda pair: (-pair[0], len(pair[1].words), pair[1].place))
        closest = [pair for pair in holding[:COMPARED] if pair[0] >= LEAST_ASKED]
        return self._judged(f"{self._question} {answer}", closest, 0.0) if closest else None

    def _judged(
        self,
        text: str,
        closest: Sequence[tuple[float, _Window]],
        least: float = LEAST_SUPPORT,
    ) -> Evidence | None:
        similarities = self._similarities(text, [window for _, window in closest])
        judged = [
            Evidence(window.place, window.start, window.end, (overlap + similarity) / 2)
            for (overlap, window), similarity in zip(closest, similarities, strict=True)
            if similarity >= LEAST_SIMILARITY
        ]
        best = max(judged, key=lambda evidence: evidence.score, default=None)
        return best if best is not None and best.score >= least else None

    def _closest(self, stems: frozenset[str], sentence: str) -> list[tuple[float, _Window]]:
        figures, called = numbers(sentence), names(sentence)
        admitted = {place for place, held in enumerate(self._words) if called <= held}
        overlaps = [
            (len(stems & window.words) / len(stems), window)
            for window in self._windows
            if window.place in admitted and figures <= window.numbers
        ]
        sharing = [pair for pair in overlaps if pair[0] >= LEAST_OVERLAP]
        # Of equal overlaps the shorter window, then the better passage.
        sharing.sort(key=lambda pair: (-pair[0], len(pair[1].words), pair[1].place))
        return sharing[: 2 * COMPARED]

    def _similarities(self, sentence: str, windows: Sequence[_Window]) -> list[float]:
        unknown = [window.text for window in windows if window.text not in self._vectors]
        vectors = np.asarray(self._encoder([sentence, *unknown]), dtype=np.float32)
        self._vectors.update(zip(unknown, vectors[1:], strict=True))
        return [float(vectors[0] @ self._vectors[window.text]) for window in windows]

    @cached_property
    def _words(self) -> list[frozenset[str]]:
        return [content_words(f"{passage.title} {passage.text}") for passage in self._passages]

    @cached_property
    def _windows(self) -> list[_Window]:
        return [
            window
            for place, passage in enumerate(self._passages)
            for window in _windows(place, passage)
        ]


def _windows(place: int, passage: Passage) -> list[_Window]:
    spans = list(sentence_spans(passage.text))
    pairs = [(left[0], right[1]) for left, right in zip(spans, spans[1:], strict=False)]
    return [
        _Window(
            place,
            passage.start + start,
            passage.start + end,
            passage.text[start:end],
            content_words(f"{passage.title} {passage.text[start:end]}"),
            numbers(f"{passage.title} {passage.text[start:end]}"),
        )
        for start, end in [*spans, *pairs]
    ]
