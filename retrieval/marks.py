"""Removes the citation marks that a model wrote by itself, while its text arrives.

Such a mark may be a number that the model made up, so none is trusted: `[1]`, `[^2]`,
`[1, 3]`, `[2][4]` and `【1†source】` go, with the space before them. What indexes an
expression stays: `[0]`, `x[1]`, `sys.argv[1]`, `rows[1] =`, and so does what is a list:
`len([1, 2])`, `x = [1, 2]`, several numbers of which one was never shown; and everything in code.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from retrieval.markdown import Kind

_MARK = re.compile(r"\[\^?[1-9]\d?(?: ?[,;–-] ?\^?[1-9]\d?)*\]|【\d{1,2}[^】\n]{0,24}】")
_PREFIX = re.compile(r"\[(?:\^?(?:[1-9][\d^,;– -]{0,24})?)?|【(?:\d[^】\n]{0,26})?")
_EXPRESSION = re.compile(r"[\w.\])]+$")
_PLAIN_WORD = re.compile(r"[^\W\d_]{2,}")
_BEFORE_LIST = re.compile(r"(?:[\w.]\(|[=\[{]|[\"']:)[ \t]*$")
_NUMBER = re.compile(r"\d+")
_BLANKS = " \t"
_LOOK_BEHIND = 48

Piece = tuple[str, Kind]
"""A character and what it belongs to."""


class MarkStripper:
    """Passes characters on, except for citation marks; holds back blanks and half marks only."""

    def __init__(self, numbers: int, shown: int) -> None:
        """`numbers` is the largest number that a model may write, `shown` what it was shown."""
        self._numbers, self._shown = numbers, shown
        self._blanks = ""
        self._mark = ""
        self._passed = ""
        self._skips_lead = False

    def read(self, character: str, kind: Kind) -> Iterator[Piece]:
        """Take the next character and yield the pieces that are certain now."""
        if self._mark:
            if self._continues(character, kind):
                self._mark += character
                return
            yield from self._close(character)
        if kind is Kind.PROSE:
            yield from self._read_prose(character)
        else:
            yield from self._release()
            yield from self._pass(character, kind)

    def flush(self) -> Iterator[Piece]:
        """Yield what is still held back; the text is at its end."""
        if self._mark:
            yield from self._close("")
        yield from self._release()

    def _continues(self, character: str, kind: Kind) -> bool:
        complete = _MARK.fullmatch(self._mark)
        extended = self._mark + character
        extends = _MARK.fullmatch(extended) or _PREFIX.fullmatch(extended)
        return kind is Kind.PROSE and not complete and extends is not None

    def _close(self, following: str) -> Iterator[Piece]:
        if not _MARK.fullmatch(self._mark) or self._is_index(following):
            yield from self._release()
            return
        self._mark = ""
        starts_line = not self._passed or self._passed.endswith("\n")
        self._skips_lead = starts_line and not self._blanks
        if following in _BLANKS or following in ".,;:!?)]}\n":
            self._blanks = ""

    def _is_index(self, following: str) -> bool:
        return self._is_list() or self._follows_name(following)

    def _is_list(self) -> bool:
        if self._mark[0] != "[":
            return False
        several = [int(number) for number in _NUMBER.findall(self._mark)]
        unknown = len(several) > 1 and max(several) > self._shown
        return unknown or _BEFORE_LIST.search(self._passed) is not None

    def _follows_name(self, following: str) -> bool:
        match = _EXPRESSION.search(self._passed)
        if self._blanks or match is None or not self._mark[1].isdigit():
            return False
        expression, number = match[0], self._mark[1:-1]
        # A full stop belongs to a word only within it, as in "sys.argv".
        if expression[-1] == "." or not number.isdigit():
            return False
        if following.isalnum() or following in tuple("=[(_"):
            return True
        return not _PLAIN_WORD.fullmatch(expression) or int(number) > self._numbers

    def _read_prose(self, character: str) -> Iterator[Piece]:
        if self._skips_lead and character in " \t:":
            return
        self._skips_lead = False
        if character in _BLANKS:
            self._blanks += character
        elif character in "[【":
            self._mark = character
        else:
            yield from self._release()
            yield from self._pass(character, Kind.PROSE)

    def _release(self) -> Iterator[Piece]:
        held, self._blanks, self._mark = self._blanks + self._mark, "", ""
        for character in held:
            yield from self._pass(character, Kind.PROSE)

    def _pass(self, character: str, kind: Kind) -> Iterator[Piece]:
        self._passed = (self._passed + character)[-_LOOK_BEHIND:]
        yield character, kind
