"""What one engine may hold at a time."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EngineLimits:
    """What one engine may hold at a time.

    `max_tokens_in_cache` bounds keys and values over all rows (bytes per token: `CacheShape`);
    `step_tokens` bounds one pass over prompts, and `shared_step_tokens` the prompt tokens that ride
    in a step of running answers, which they delay; other prompts run between the steps. Each
    `ageing_s` seconds of waiting raise a request by one level of priority.
    """

    context: int = 2048
    max_rows: int = 32
    max_waiting: int = 256
    max_tokens_in_cache: int = 65_536
    step_tokens: int = 256
    shared_step_tokens: int = 16
    ageing_s: float = 10.0
