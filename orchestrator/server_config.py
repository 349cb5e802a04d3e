"""What the configuration says about where the gateway listens, and to whom."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from orchestrator.deployment import DeploymentConfig
from orchestrator.hosts import ANY
from orchestrator.loopback import is_loopback
from orchestrator.strict_model import StrictModel

_Host = Annotated[str, Field(pattern=r"^[^/:\s]+$")]


class ServerConfig(StrictModel):
    """Where the gateway listens, and Ray Serve's throughput switches.

    `haproxy` puts Ray's bundled HAProxy in front: faster, but its ports 8404 and 9101 listen on
    every interface, so it is off unless asked for. `keyless_writes` null: where `host` is loopback.
    `allowed_hosts` null: where `host` is loopback none but this machine's own names, else all.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    throughput_optimized: bool = True
    haproxy: bool = False
    request_timeout_s: Annotated[float, Field(gt=0)] = 600.0
    keyless_writes: bool | None = None
    allowed_hosts: tuple[_Host, ...] | None = None
    deployment: DeploymentConfig = DeploymentConfig()

    @property
    def lets_everyone_write(self) -> bool:
        """Whether callers without a key may change collections over HTTP."""
        return is_loopback(self.host) if self.keyless_writes is None else self.keyless_writes

    @property
    def hosts(self) -> tuple[str, ...]:
        """Names by which it may be reached, beside addresses and `localhost`; `ANY` for all."""
        default = () if is_loopback(self.host) else (ANY,)
        return default if self.allowed_hosts is None else self.allowed_hosts

    def deployed(self) -> ServerConfig:
        """The same where others than `host` say where it listens."""
        hosts = (ANY,) if self.allowed_hosts is None else self.allowed_hosts
        writes = bool(self.keyless_writes)
        return self.model_copy(update={"keyless_writes": writes, "allowed_hosts": hosts})
