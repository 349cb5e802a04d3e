"""The parts of a message's content: text, and files that are text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag

from orchestrator.strict_model import StrictModel, refuse

LONGEST_FILENAME = 255


def _keeps_no_files(name: str | None) -> str | None:
    if name is not None:
        what = "names a file that was uploaded before, but this service keeps no files"
        raise refuse("file_id", "", f"{what}: leave it out and send the content in `file_data`")
    return name


class TextPart(StrictModel):
    """One text part of a message's content."""

    not_served = dict.fromkeys(("image_url", "input_audio", "file", "refusal"))

    type: Literal["text"] = "text"
    text: str


class FileData(StrictModel):
    """A file inside a message; `file_data` is base64, bare or as a data URL (RFC 2397)."""

    filename: Annotated[str, Field(min_length=1, max_length=LONGEST_FILENAME)] | None = None
    file_data: Annotated[str, Field(min_length=1)]
    file_id: Annotated[str | None, AfterValidator(_keeps_no_files)] = None


class FilePart(StrictModel):
    """One file of a message's content; see `orchestrator.attachment` for what is taken."""

    type: Literal["file"]
    file: FileData


def _kind(part: object) -> str:
    # Tags stand in angle brackets so that errors.from_validation can leave them out of the path.
    kind = part.get("type") if isinstance(part, Mapping) else getattr(part, "type", None)
    return "<file part>" if kind == "file" else "<text part>"


Part = Annotated[
    Annotated[TextPart, Tag("<text part>")] | Annotated[FilePart, Tag("<file part>")],
    Discriminator(_kind),
]
