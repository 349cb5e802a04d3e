"""Which characters of a Markdown text are prose and which are code, decided as they arrive."""

from __future__ import annotations

import re
from enum import Enum, auto

_OPENING = re.compile(r"[ \t]*(`{3,}|~{3,})")
_CLOSING = re.compile(r"[ \t]*(`{3,}|~{3,})[ \t\r]*")


class Kind(Enum):
    """What a character belongs to."""

    PROSE = auto()
    INLINE_CODE = auto()
    FENCED_CODE = auto()


class MarkdownReader:
    """Classifies one character after the other, without looking ahead.

    The first two backticks of a fence count as inline code; an inline span ends with its line
    at the latest. Fences may be indented, as models write them in lists.
    """

    def __init__(self) -> None:
        self._line = ""
        self._fence = ""
        self._fence_opens_here = False
        self._span = 0
        self._run = 0

    def read(self, character: str) -> Kind:
        """Take the next character and return its kind."""
        line, self._line = self._line, self._line + character
        if character == "\n":
            return self._end_line(line)
        if self._fence:
            return self._read_fenced(character)
        opening = _OPENING.fullmatch(self._line)
        if opening:
            self._fence, self._fence_opens_here = opening[1], True
            return Kind.FENCED_CODE
        return self._read_line(character)

    def _end_line(self, line: str) -> Kind:
        self._line, self._span, self._run = "", 0, 0
        if not self._fence:
            return Kind.PROSE
        closing = _CLOSING.fullmatch(line)
        if closing and not self._fence_opens_here and closing[1].startswith(self._fence):
            self._fence = ""
        self._fence_opens_here = False
        return Kind.FENCED_CODE

    def _read_fenced(self, character: str) -> Kind:
        if self._fence_opens_here and character == "`" and self._fence[0] == "`":
            opening = _OPENING.fullmatch(self._line)
            if opening:
                self._fence = opening[1]
            else:  # ```code``` within one line is an inline span
                self._span, self._run, self._fence = len(self._fence), 1, ""
                return Kind.INLINE_CODE
        return Kind.FENCED_CODE

    def _read_line(self, character: str) -> Kind:
        if character == "`":
            self._run += 1
            return Kind.INLINE_CODE
        if self._run:
            if not self._span:
                self._span = self._run
            elif self._span == self._run:
                self._span = 0
            self._run = 0
        return Kind.INLINE_CODE if self._span else Kind.PROSE
