"""Writes Markdown from the tags and texts of a page, as they come."""

from __future__ import annotations

import re

_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_BLOCKS = frozenset(
    """
    address article blockquote body center dd details div dl dt fieldset figcaption figure header
    hgroup hr li main ol p pre section summary table tbody tfoot thead tr ul
    """.split()
)
_SPACE = re.compile(r"\s+")
_AROUND_BREAK = re.compile(r" *\n *")
_SYNTAX = re.compile(r"#{1,6}\s|`{3}|~{3}|\|")
_FENCES = re.compile(r"`{3,}")
_LANGUAGE = re.compile(r"(?:^|\s)(?:language|lang)-([\w+#-]+)")
_DEEPEST_LIST = 6


class MarkdownWriter:
    """Takes tags and texts in their order; `text` is the page so far."""

    def __init__(self) -> None:
        self.first_heading = ""
        self._blocks: list[tuple[str, bool]] = []
        self._buffer: list[str] = []
        self._lists: list[int | None] = []
        self._marker = ""
        self._pre = 0
        self._language = ""
        self._cells = 0
        self._rows: list[list[str]] = []

    def open(self, tag: str, classes: str) -> None:
        """Take the beginning of an element."""
        if self._pre:
            found = _LANGUAGE.search(classes)
            self._language = found[1] if found else self._language
            self._pre += 1
        elif self._cells:
            self._open_in_cell(tag)
        elif tag == "pre":
            self._flush()
            self._pre, self._language = 1, (_LANGUAGE.search(classes) or ["", ""])[1]
        else:
            self._open_block(tag)

    def close(self, tag: str) -> None:
        """Take the end of an element."""
        if self._pre:
            self._pre -= 1
            if not self._pre:
                self._end_pre()
        elif self._cells:
            self._close_in_cell(tag)
        elif tag in _HEADINGS:
            self._end_heading(_HEADINGS[tag])
        elif tag == "code":
            self._buffer.append("`")
        elif tag in _BLOCKS:
            self._flush()
            self._end_block(tag)

    def write(self, text: str) -> None:
        """Take text between tags."""
        self._buffer.append(text if self._pre else _SPACE.sub(" ", text))

    def text(self) -> str:
        """The Markdown of all that was taken."""
        self._flush()
        written = ""
        was_tight = False
        for block, tight in self._blocks:
            gap = "\n" if tight and was_tight else "\n\n"
            written += (gap if written else "") + block
            was_tight = tight
        return written

    def _open_block(self, tag: str) -> None:
        if tag in _BLOCKS or tag in _HEADINGS:
            self._flush()
        if tag in ("ul", "ol"):
            self._lists.append(1 if tag == "ol" else None)
        elif tag == "li":
            self._marker = self._next_marker()
        elif tag == "br":
            self._buffer.append("\n")
        elif tag == "code":
            self._buffer.append("`")
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._buffer = []
            self._cells = 1

    def _end_block(self, tag: str) -> None:
        if tag in ("ul", "ol") and self._lists:
            self._lists.pop()
        elif tag == "li":
            self._marker = ""
        elif tag == "table":
            self._end_table()

    def _next_marker(self) -> str:
        if not self._lists:
            return "- "
        number = self._lists[-1]
        if number is None:
            return "- "
        self._lists[-1] = number + 1
        return f"{number}. "

    def _open_in_cell(self, tag: str) -> None:
        if tag in ("td", "th"):
            self._cells += 1
        if tag in _BLOCKS or tag == "br":
            self._buffer.append(" ")

    def _close_in_cell(self, tag: str) -> None:
        if tag in ("td", "th"):
            self._cells -= 1
        if self._cells:
            self._buffer.append(" " if tag in _BLOCKS else "")
            return
        cell = " ".join("".join(self._buffer).split()).replace("|", "\\|")
        self._buffer = []
        if not self._rows:
            self._rows.append([])
        self._rows[-1].append(cell)

    def _end_heading(self, level: int) -> None:
        words = " ".join("".join(self._buffer).split())
        self._buffer = []
        if words:
            self.first_heading = self.first_heading or words
            self._blocks.append((f"{'#' * level} {words}", False))

    def _end_pre(self) -> None:
        code = "".join(self._buffer).strip("\n")
        self._buffer = []
        if code.strip():
            longest = max((len(run) for run in _FENCES.findall(code)), default=2)
            fence = "`" * (longest + 1)
            self._blocks.append((f"{fence}{self._language}\n{code}\n{fence}", False))

    def _end_table(self) -> None:
        rows, self._rows = [row for row in self._rows if any(row)], []
        if not rows:
            return
        # Short rows stay short: filled up to one wide row, they would cost its width each.
        lines = ["| " + " | ".join(row) + " |" for row in rows]
        lines.insert(1, "|" + " --- |" * len(rows[0]))
        self._blocks.append(("\n".join(lines), False))

    def _flush(self) -> None:
        words = _AROUND_BREAK.sub("\n", _unspaced("".join(self._buffer))).strip()
        self._buffer = []
        if not words:
            return
        if not self._lists:
            # What only looks like a heading, a fence or a table is none.
            lead = "\\" if _SYNTAX.match(words) else ""
            self._blocks.append((lead + words, False))
            return
        depth = min(len(self._lists), _DEEPEST_LIST) - 1
        lead = "  " * depth + (self._marker or "  ")
        self._marker = ""
        self._blocks.append((lead + words.replace("\n", "\n" + " " * len(lead)), True))


def _unspaced(text: str) -> str:
    return re.sub(r"[ \t]+", " ", text)
