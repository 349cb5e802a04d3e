"""What a version of the router must show before it may act: the part of the configuration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated

from pydantic import Field
from pydantic_core import PydanticCustomError

from orchestrator.request import NonNegative
from orchestrator.strict_model import StrictModel, refuse

Metric = Annotated[str, Field(pattern=r"^[^\s.]+(\.[^\s.]+)*$")]


class GateConfig(StrictModel):
    """Limits of one figure of the report; at least one must be given."""

    at_least: float | None = None
    at_most: float | None = None
    drop: NonNegative | None = None
    rise: NonNegative | None = None

    @classmethod
    def conflicts(cls, data: Mapping[str, object]) -> Iterator[PydanticCustomError]:
        """A figure without a limit is asked nothing."""
        if all(value is None for value in data.values()):
            yield refuse("no_limit", "", f"must give at least one of {', '.join(cls.model_fields)}")


def default_gates() -> dict[str, GateConfig]:
    """What holds where the configuration says nothing."""
    return {
        "held_out.accuracy": GateConfig(at_least=0.9, drop=0.01),
        "held_out.ece": GateConfig(at_most=0.05, rise=0.02),
    }
