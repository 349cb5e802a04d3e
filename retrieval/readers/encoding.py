"""Bytes to text: UTF-8 first, then what charset-normalizer takes them for."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from retrieval.original import Original

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_GUESSED_FROM = 262_144
_DOUBTFUL = 0.2
"""Share of disorder, by charset-normalizer's measure, from which bytes are not taken for text."""


def decode(original: Original, data: bytes, declared: Sequence[str] = ()) -> str:
    """Return the text of `data` without its byte order mark; line ends stay as they are.

    `declared` are encodings that the file names itself. Raises `UnreadableSource` for what is
    binary, mixes encodings, or is text in no encoding that is recognised.
    """
    for mark, name in _MARKS:
        if data.startswith(mark):
            return _strict(original, data[len(mark) :], name)
    if is_binary(data):
        raise original.unreadable("is binary, not text")
    for name in (*declared, "utf-8"):
        text = _tried(data, name)
        if text is not None:
            return text
    _refuse_mixture(original, data)
    return _strict(original, data, _guessed(original, data))


def is_binary(data: bytes) -> bool:
    """Say whether bytes that begin so are not those of a text."""
    marked = any(data.startswith(mark) for mark, _ in _MARKS)
    return not marked and b"\0" in data


def _tried(data: bytes, encoding: str) -> str | None:
    try:
        return data.decode(encoding)
    except (LookupError, ValueError):
        # Not only UnicodeDecodeError: the encoding "undefined" is one that always fails.
        return None


def _strict(original: Original, data: bytes, encoding: str) -> str:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise original.unreadable(
            f"is not valid {encoding.upper()} at byte {error.start}, which it begins as"
        ) from error


def _guessed(original: Original, data: bytes) -> str:
    from charset_normalizer import from_bytes

    # A cut within a character would make any multi-byte encoding look wrong.
    sample = data[:_GUESSED_FROM].rpartition(b"\n")[0] or data[:_GUESSED_FROM]
    best = from_bytes(sample, threshold=_DOUBTFUL).best()
    if best is None:
        raise original.unreadable(
            "is neither UTF-8 nor text in another known encoding; convert it first, "
            "for example with iconv"
        )
    return best.encoding


def _refuse_mixture(original: Original, data: bytes) -> None:
    """Raise where half of the lines beyond ASCII are UTF-8: by chance few lines of others are."""
    fitting = wrong = first_wrong = 0
    for number, line in enumerate(data.split(b"\n"), start=1):
        if not line.isascii():
            if _tried(line, "utf-8") is not None:
                fitting += 1
            else:
                wrong += 1
                first_wrong = first_wrong or number
    if fitting and fitting >= wrong:
        raise original.unreadable(
            f"mixes encodings: {fitting} lines are UTF-8, line {first_wrong} is not; "
            "convert it first"
        )
