"""Kinds of attachments that an expert may declare: a file's ending, or a media type."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

_ENDING = r"\.[a-z0-9][a-z0-9_+-]*"
_MEDIA_TYPE = r"[a-z]+/[a-z0-9][a-z0-9.+-]*"

AttachmentKind = Annotated[str, Field(pattern=rf"^({_ENDING}|{_MEDIA_TYPE})$", max_length=100)]
"""In lower case: `.py`, or `text/x-python`."""
