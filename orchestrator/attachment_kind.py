"""Kinds of attachments that an expert may declare: a file's ending, or a media type."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field

_ENDING = r"\.[a-z0-9][a-z0-9_+-]*"
_MEDIA_TYPE = r"[a-z]+/[a-z0-9][a-z0-9.+-]*"
_LONGEST = 100
_UNTOLD = frozenset(("application/octet-stream", "binary/octet-stream"))

AttachmentKind = Annotated[str, Field(pattern=rf"^({_ENDING}|{_MEDIA_TYPE})$", max_length=_LONGEST)]
"""In lower case: `.py`, or `text/x-python`."""


def may_be_declared(kind: str) -> bool:
    """Whether a kind has the form of `AttachmentKind` and says more than that it is a file."""
    known = re.fullmatch(f"{_ENDING}|{_MEDIA_TYPE}", kind) is not None
    return known and len(kind) <= _LONGEST and kind not in _UNTOLD
