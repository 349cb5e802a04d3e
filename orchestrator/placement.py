"""Which experts share a deployment, and what it is called."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.config import Config, Placement


def groups(config: Config) -> list[tuple[str, ...]]:
    """The experts of each deployment, its own first: together by base model, or one by one.

    Those that are disabled have none.
    """
    together: dict[str, list[str]] = {}
    enabled = ((name, expert) for name, expert in config.experts.items() if expert.enabled)
    for name, expert in enabled:
        alone = expert.model is None or config.placement is Placement.APART
        together.setdefault(f"expert {name}" if alone else f"model {expert.model}", []).append(name)
    return [tuple(names) for names in together.values()]


def deployment_name(names: Sequence[str], config: Config) -> str:
    """The name of the deployment that answers for these experts."""
    expert = config.experts[names[0]]
    together = expert.model is not None and config.placement is Placement.TOGETHER
    return f"Experts:{expert.model}" if together else f"Expert:{names[0]}"
