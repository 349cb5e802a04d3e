"""Where sentences end, in running text and while it is still being written.

Rules, not a model: a full stop ends a sentence only before white space, and not after an
abbreviation, an initial, a list number or before a lower-case letter; Chinese and Japanese
stops end it at once. The same rule serves chunking and the placing of citation marks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

SPACED_STOPS = ".!?…।॥؟۔"
"""Stops that end a sentence only where white space follows."""

CLOSED_STOPS = "。！？｡"
"""Stops of scripts without spaces: they end a sentence whatever follows."""

STOPS = SPACED_STOPS + CLOSED_STOPS
"""Every character that can end a sentence."""

CLOSERS = "\"'”’»)]}*_」』）】》〉"
"""Characters that may stand between a stop and the end of its sentence."""

_ABBREVIATIONS = frozenset(
    """
    al approx apr art arts assn aug ave cap capt cf cfr ch chap cl co col corp dec dept dr ed eds
    eg e.g eq esp est et.al feb fig figs fn gen gov hon ie i.e inc incl jan jr jul jun lt ltd mar
    max min misc mr mrs ms mt nov no nos nr oct op p para paras par pp prof pub pt pts ref refs
    rep rev sec secs sect sen sept sep sgt sr st std subsec supp tab v ver vol vols vs viz
    abs bspw bzw ca evtl ff ggf hrsg inkl mind nr sog str u.a usw vgl z.b zzgl
    dña ej núm pág sra srta ud uds av env etc. mme mlle sig dott
    г гг др им напр рис см стр т тыс ул
    """.split()
)
# "am 3. Oktober" is one phrase, "in version 3. The" is not.
_ORDINAL = re.compile(r"\b(?:am|der|dem|den|des|die|vom|zum|bis|im)\s+\d{1,2}\.$", re.IGNORECASE)
_LIST_NUMBER = re.compile(r"(?:^|\n)\s*(?:[-*+]\s+)?(?:\d{1,3}|[A-Za-z])\.$")
_LAST_WORD = re.compile(r"(?:[^\W\d_]|(?<=\w)\.(?=\w))+$")
_LOOK_BEHIND = 48
_BREAK = re.compile(
    r"\n[ \t]*\n"  # a blank line
    r"|\n(?=[ \t]*(?:[-*+•]|\d{1,3}[.)])[ \t])"  # before a list item
    r"|\n(?=[ \t]{0,3}(?:#{1,6}[ \t]|\||>))"  # before a heading, a table row, a quotation
)
_STOP_RUN = re.compile(rf"[{re.escape(STOPS)}]+[{re.escape(CLOSERS)}]*")


def is_sentence_end(before: str, gap: str, after: str) -> bool:
    """Say whether a sentence ends after `before`, which closes with a stop and its closers.

    `gap` is the white space that follows and `after` the next character, "" at the end of
    the text. Only the last line of `before` matters, at most 48 characters of it.
    """
    head = before[-_LOOK_BEHIND:].rstrip(CLOSERS)
    if not head or head[-1] not in STOPS:
        return False
    if head[-1] in CLOSED_STOPS:
        return True
    if _LIST_NUMBER.search(head):
        return False
    if not after or "\n" in gap and not after.islower():
        return True
    if not gap or after.islower():
        return False
    return head[-1] != "." or not _is_abbreviated(head)


def sentence_spans(text: str, start: int = 0, end: int | None = None) -> Iterator[tuple[int, int]]:
    """Yield the (start, end) offsets of the sentences in `text[start:end]`, without outer spaces.

    List items, headings and paragraphs end a sentence as well; a single line break does not.
    """
    stop = len(text) if end is None else end
    for left, right in _blocks(text, start, stop):
        yield from _sentences(text, left, right)


def _blocks(text: str, start: int, stop: int) -> Iterator[tuple[int, int]]:
    left = start
    for match in _BREAK.finditer(text, start, stop):
        yield left, match.start()
        left = match.end()
    yield left, stop


def _sentences(text: str, start: int, stop: int) -> Iterator[tuple[int, int]]:
    left = start
    for match in _STOP_RUN.finditer(text, start, stop):
        after = match.end()
        while after < stop and text[after].isspace():
            after += 1
        following = text[after] if after < stop else ""
        # Only so much of it matters; without the bound, text that never ends would cost its square.
        before = text[max(left, match.end() - _LOOK_BEHIND) : match.end()]
        if is_sentence_end(before, text[match.end() : after], following):
            yield from _trimmed(text, left, match.end())
            left = after
    yield from _trimmed(text, left, stop)


def _trimmed(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    if start < end:
        yield start, end


def _is_abbreviated(head: str) -> bool:
    if head.endswith(".."):
        return False
    match = _LAST_WORD.search(head[:-1])
    word = match[0].casefold() if match else ""
    initial = len(word.rpartition(".")[2]) == 1 and word != "i"
    return initial or word in _ABBREVIATIONS or _ORDINAL.search(head) is not None
