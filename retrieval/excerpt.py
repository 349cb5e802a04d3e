"""Excerpts: the sentences of a passage that a question is about, where not all of it fits."""

from __future__ import annotations

from retrieval.sentences import sentence_spans
from retrieval.words import content_words


def excerpt(text: str, question: str, longest: int) -> str:
    """Return whole sentences of `text`, in a row and `longest` characters at most.

    They are those that hold the most content words of `question`; of equals the first. A sentence
    that is longer than that ends at its last whole word, and "" is what no word fits.
    """
    if len(text) <= longest:
        return text
    asked = content_words(question)
    spans = list(sentence_spans(text))
    held = [len(asked & content_words(text[start:end])) for start, end in spans]
    best, chosen = -1, (0, 0)
    for first, (start, _) in enumerate(spans):
        for last in range(first, len(spans)):
            if spans[last][1] - start > longest:
                break
            found = sum(held[first : last + 1])
            length = spans[last][1] - start
            if found > best or found == best and start == chosen[0] and length > chosen[1] - start:
                best, chosen = found, (start, spans[last][1])
    if best < 0:
        return _cut(text, longest)
    return text[chosen[0] : chosen[1]]


def _cut(text: str, longest: int) -> str:
    head = text[:longest]
    if text[longest : longest + 1].isspace() or not any(map(str.isspace, head)):
        return head.rstrip()
    return head[: max(map(head.rfind, " \n\t"))].rstrip()
