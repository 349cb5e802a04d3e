"""Long texts in parts: each part is judged by itself, and then they are judged together.

What is asked stands at the beginning or at the end of a long text, and what stands around it may be
of another domain, or of none. One vector of all would water the question down; the parts' scores do
not. An expert speaks for the whole as strongly as for the part that is most its own, the generalist
only as strongly as for the part that is least its own.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from router.calibration import Matrix

WHOLE_CHARACTERS = 1000
"""Texts up to here are one part: about what the encoder reads at once (256 tokens)."""

HEAD_CHARACTERS = 600
TAIL_CHARACTERS = 500
LEAST_TAIL = 40
"""A last paragraph shorter than this is no part by itself: a signature, a word of thanks."""

_FENCED = re.compile(r"\A(`{3,}|~{3,})[ \t]*\n(.*)\n\1[ \t]*\Z", re.DOTALL)


def clean(text: str) -> str:
    """Return the text as it is read: normal form C, trimmed, without a fence around all of it.

    Lone surrogates, which JSON can carry, become question marks.
    """
    normal = unicodedata.normalize("NFC", text.encode("utf-8", "replace").decode("utf-8")).strip()
    fenced = _FENCED.match(normal)
    inner = fenced[2].strip() if fenced else normal
    return inner or normal


def parts(text: str) -> tuple[str, ...]:
    """Return the parts of a text that are read: all of it, or its head and its tail.

    The tail is the last paragraph where that can stand alone, else the last characters.
    """
    whole = clean(text)
    if len(whole) <= WHOLE_CHARACTERS:
        return (whole,)
    return whole[:HEAD_CHARACTERS], _tail(whole)


def _tail(whole: str) -> str:
    tail = whole[-TAIL_CHARACTERS:]
    for start in reversed([found.end() for found in re.finditer(r"\n+", tail)]):
        if len(tail) - start >= LEAST_TAIL:
            return tail[start:].strip()
    return tail.strip()


def columns(labels: Sequence[str], name: str) -> list[int]:
    """Return the columns of a label; none where nobody bears it."""
    return [place for place, label in enumerate(labels) if label == name]


def strongest(
    scores: npt.NDArray[np.floating[Any]],
    starts: Sequence[int] | npt.NDArray[np.int64],
    generalist: Sequence[int],
) -> Matrix:
    """Return the scores [n, labels] of whole texts, given those of their parts [m, labels].

    Text i has the rows from `starts[i]` to the next start; `generalist` are the columns for what is
    no expert's own.
    """
    found = np.maximum.reduceat(np.asarray(scores, dtype=np.float64), starts, axis=0)
    for column in generalist:
        found[:, column] = np.minimum.reduceat(scores[:, column], starts)
    return np.asarray(found, dtype=np.float64)
