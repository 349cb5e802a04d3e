"""What one Serve deployment may be told: scaling, resources, queues."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import Field, ValidationInfo, field_validator

from orchestrator.strict_model import StrictModel, refuse

_Positive = Annotated[int, Field(ge=1)]


class AutoscalingConfig(StrictModel):
    """How one deployment scales by itself; `target_ongoing_requests` is per replica.

    `min_replicas` 0 lets it stop when idle; its next request waits for the start.
    """

    min_replicas: Annotated[int, Field(ge=0)] = 1
    max_replicas: Annotated[int, Field(ge=1, validate_default=True)] = 1
    target_ongoing_requests: Annotated[float, Field(gt=0)] = 8.0
    upscale_delay_s: Annotated[float, Field(ge=0)] = 10.0
    downscale_delay_s: Annotated[float, Field(ge=0)] = 120.0

    @field_validator("max_replicas")
    @classmethod
    def _not_below_the_least(cls, most: int, found: ValidationInfo) -> int:
        least = found.data.get("min_replicas", 0)
        if least > most:
            what = f"is {most}, below `min_replicas`, {least}: raise the one or lower the other"
            raise refuse("order", "", what)
        return most


class ResourcesConfig(StrictModel):
    """What Ray reserves for one replica; `custom` are Ray's custom resources by name."""

    num_cpus: Annotated[float, Field(ge=0)] = 0.2
    num_gpus: Annotated[float, Field(ge=0)] = 0.0
    memory_gb: Annotated[float, Field(gt=0)] | None = None
    custom: dict[str, Annotated[float, Field(gt=0)]] = {}

    def reserved(self) -> dict[str, Any]:
        """The options of a Ray actor that reserve it; memory is in bytes."""
        memory = {} if self.memory_gb is None else {"memory": int(self.memory_gb * 2**30)}
        cpus_and_gpus = {"num_cpus": self.num_cpus, "num_gpus": self.num_gpus}
        return {**cpus_and_gpus, "resources": dict(self.custom), **memory}


class DeploymentConfig(StrictModel):
    """Scaling, resources and queue bounds of one deployment."""

    autoscaling: AutoscalingConfig = AutoscalingConfig()
    resources: ResourcesConfig = ResourcesConfig()
    max_ongoing_requests: _Positive = 64
    max_queued_requests: Annotated[int, Field(ge=-1)] = 256


def shared(settings: Iterable[DeploymentConfig]) -> DeploymentConfig:
    """What counts for experts that share a deployment: what one of them sets, else the defaults.

    `orchestrator.consistency` refuses a configuration in which two of them set different things.
    """
    default = DeploymentConfig()
    return next((one for one in settings if one != default), default)
