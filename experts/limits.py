"""What one engine may hold at a time."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EngineLimits:
    """What one engine may hold at a time.

    `max_tokens_in_cache` bounds keys and values over all rows (bytes per token: `CacheShape`);
    `step_tokens` bounds one forward pass, and `shared_step_tokens` the prompt tokens of a pass that
    also carries running answers, which it delays. Each `ageing_s` seconds of waiting raise a
    request by one level of priority.
    """

    context: int = 2048
    max_rows: int = 32
    max_waiting: int = 256
    max_tokens_in_cache: int = 65_536
    step_tokens: int = 256
    shared_step_tokens: int = 64
    ageing_s: float = 10.0
