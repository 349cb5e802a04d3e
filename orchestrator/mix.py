"""Whether the experts of a request could ever be mixed by the engine that would have to."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.config import Config
from orchestrator.errors import InvalidRequest
from orchestrator.request import AUTO, ChatRequest, Mode, RoutingOptions
from orchestrator.seats import Seats
from router.overrides import Overrides


def check_seats(
    request: ChatRequest, routing: RoutingOptions, overrides: Overrides, config: Config
) -> None:
    """Refuse a mix for which the engine could never have room, whatever the router says.

    Raises:
        InvalidRequest: it names the key, and how many experts there is room for.
    """
    mode = routing.mode or config.combination.mode
    if overrides.weights is not None:
        key = "routing.weights" if request.model == AUTO else "model"
        names = [name for name, weight in overrides.weights.items() if weight > 0]
        count = len(names)
    else:
        key = "routing.mode" if routing.top_k is None else "routing.top_k"
        names = list(overrides.experts or config.experts)
        count = routing.top_k or config.router.top_k
    models = {config.experts[name].model for name in names}
    # Experts of several bases that a caller forces are not mixed at all.
    mixes = mode in (Mode.BLEND, Mode.MIXTURE) and (overrides.weights is None or len(models) == 1)
    for model in models - {None} if mixes else ():
        for short in _seats(names, str(model), config).shortages(count, mode):
            raise InvalidRequest(
                f"`{key}` asks for a mix of {count} experts, but model {model!r} has room for "
                f"{short.room} in one answer: ask for {short.room} at most, or for `routing.mode` "
                f"'rank', or have `models.{model}.{short.key}` set to {short.needed} or more.",
                param=key,
            )


def _seats(names: Sequence[str], model: str, config: Config) -> Seats:
    settings = config.models[model]
    pinned = {n for n, e in config.experts.items() if e.model == model and e.adapter and e.pinned}
    mine = [name for name in names if config.experts[name].model == model]
    return Seats(
        pinned=len(pinned),
        adapters=settings.resident_adapters - len(pinned),
        rows=settings.max_rows,
        experts=len(mine),
        loose=sum(config.experts[name].adapter is not None for name in {*mine} - pinned),
    )
