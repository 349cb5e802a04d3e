"""What the service knows while it routes a request, beyond the request itself."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Situation:
    """Live values by expert, of which a name that is left out counts as 0; and what is attached.

    `previous` are the weights of the session's last decision, `costs` what one answer of an expert
    is estimated to cost (USD), `waits` how long a request to it waits now (seconds), `biases` what
    `LoadBias` adds for the choice. `seconds_left` until the request's deadline; None without one.
    `attached` are the kinds of files in the last message (`.py`, `text/x-python`).
    """

    previous: Mapping[str, float] = field(default_factory=dict)
    costs: Mapping[str, float] = field(default_factory=dict)
    waits: Mapping[str, float] = field(default_factory=dict)
    biases: Mapping[str, float] = field(default_factory=dict)
    seconds_left: float | None = None
    attached: tuple[str, ...] = ()


CALM = Situation()
"""Nothing is known: no session, no prices, no queues."""
