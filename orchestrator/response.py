"""What all objects of a response have in common."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


def _is_none(value: object) -> bool:
    return value is None


# Left out of the wire form when None; other None fields are written as null, as OpenAI does.
OMITTED: Any = Field(default=None, exclude_if=_is_none)


class Response(BaseModel):
    """A frozen object that ignores fields which it does not know."""

    model_config = ConfigDict(extra="ignore", frozen=True)
