"""A task: a request after it was checked against the configuration and the caller's rights."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from experts.generation import Sampling
from orchestrator.config import Config
from orchestrator.errors import InvalidRequest, NotFound, PermissionDenied
from orchestrator.identity import Principal
from orchestrator.request import ChatRequest, Grounding, Mode, Role, RoutingOptions, Weighting
from orchestrator.seats import Seats
from router.overrides import Overrides

AUTO = "auto"


@dataclass(frozen=True)
class Task:
    """What the pipeline needs to know of a request. `deadline` is on the monotonic clock."""

    id: str
    model: str
    messages: tuple[tuple[str, str], ...]
    sampling: Sampling
    overrides: Overrides
    mode: Mode | None
    weighting: Weighting
    grounding: Grounding
    collections: tuple[str, ...] | None
    principal: Principal
    priority: int = 0
    started: float = field(default_factory=time.monotonic)
    deadline: float | None = None

    @property
    def query(self) -> str:
        """The last thing that the user said."""
        return next((text for role, text in reversed(self.messages) if role == Role.USER), "")

    @property
    def key(self) -> str:
        """What decides whether a canary version of the router acts: requests with one key agree."""
        return self.id

    @property
    def forced(self) -> bool:
        """Whether the caller gave the weights."""
        return self.overrides.weights is not None


def accept(request: ChatRequest, principal: Principal, config: Config) -> Task:
    """Check a request against configuration and rights.

    Raises:
        InvalidRequest, NotFound, PermissionDenied: with the key at fault.
    """
    routing = request.routing or RoutingOptions()
    messages = _messages(request, config)
    started = time.monotonic()
    overrides = _overrides(request, routing, principal, config)
    _check_seats(request, routing, overrides, config)
    return Task(
        id=f"chatcmpl-{secrets.token_hex(12)}",
        model=request.model,
        messages=messages,
        sampling=_sampling(request, config),
        overrides=overrides,
        mode=routing.mode,
        weighting=routing.weighting or Weighting.ROUTER,
        grounding=_grounding(routing, config),
        collections=_collections(routing, principal),
        principal=principal,
        priority=_priority(routing, principal),
        started=started,
        deadline=started + routing.deadline_ms / 1000 if routing.deadline_ms else None,
    )


def model_names(config: Config, principal: Principal) -> list[str]:
    """What may stand in `model`: `auto` and the experts that the caller may ask."""
    return [AUTO, *(name for name in config.experts if principal.may_ask(name))]


def _messages(request: ChatRequest, config: Config) -> tuple[tuple[str, str], ...]:
    limits = config.limits
    if len(request.messages) > limits.max_messages:
        raise InvalidRequest(
            f"`messages` has {len(request.messages)} items, at most {limits.max_messages} are "
            "allowed: leave out the oldest.",
            param="messages",
        )
    messages = []
    for message in request.messages:
        role = Role.SYSTEM if message.role is Role.DEVELOPER else message.role
        # JSON may carry lone surrogates, which neither tokenizers nor responses can hold.
        text = message.text.encode("utf-8", "replace").decode("utf-8")
        messages.append((str(role), text))
    if not any(role == Role.USER and text.strip() for role, text in messages):
        raise InvalidRequest(
            "`messages` must hold at least one message of role `user` with text.", param="messages"
        )
    size = sum(len(text) for _, text in messages)
    if size > limits.max_prompt_characters:
        raise InvalidRequest(
            f"`messages` hold {size} characters, at most {limits.max_prompt_characters} are "
            "allowed: shorten them.",
            param="messages",
            code="context_length_exceeded",
        )
    return tuple(messages)


def _sampling(request: ChatRequest, config: Config) -> Sampling:
    limit = request.token_limit
    if limit is not None and limit > config.limits.max_tokens:
        key = "max_tokens" if request.max_tokens else "max_completion_tokens"
        raise InvalidRequest(
            f"`{key}` is {limit}, at most {config.limits.max_tokens} are allowed.", param=key
        )
    defaults = config.sampling
    temperature, top_p = request.temperature, request.top_p
    return Sampling(
        max_tokens=limit or min(defaults.max_tokens, config.limits.max_tokens),
        temperature=defaults.temperature if temperature is None else temperature,
        top_p=defaults.top_p if top_p is None else top_p,
        seed=request.seed,
        stop=request.stops,
        logprobs=(request.top_logprobs or 0) if request.logprobs else None,
    )


def _overrides(
    request: ChatRequest, routing: RoutingOptions, principal: Principal, config: Config
) -> Overrides:
    weights = _forced_weights(request, routing)
    named = [*(weights or ()), *(routing.experts or ())]
    origin = "model" if request.model != AUTO else "routing"
    for name in named:
        if name not in config.experts:
            known = ", ".join(model_names(config, principal))
            raise NotFound(
                f"`{origin}` names the expert {name!r}, which does not exist. Known: {known}. "
                "Several are joined by `+`.",
                param=origin if origin == "model" else _key_of(name, routing),
            )
        if not principal.may_ask(name):
            raise PermissionDenied(f"The expert {name!r} is not open to this key.", param=origin)
    return Overrides(
        top_k=routing.top_k,
        top_p=routing.top_p,
        min_confidence=routing.min_confidence,
        experts=_allowed(routing, principal, config),
        weights=weights,
    )


def _forced_weights(request: ChatRequest, routing: RoutingOptions) -> Mapping[str, float] | None:
    weights: Mapping[str, float] | None = routing.weights
    if request.model != AUTO:
        for key in ("weights", "experts"):
            if getattr(routing, key) is not None:
                raise InvalidRequest(
                    f"`routing.{key}` cannot be combined with the model {request.model!r}; use the "
                    f"model {AUTO!r}.",
                    param=f"routing.{key}",
                )
        weights = dict.fromkeys(request.model.split("+"), 1.0)
    return weights


def _key_of(name: str, routing: RoutingOptions) -> str:
    return f"routing.weights.{name}" if name in (routing.weights or {}) else "routing.experts"


def _allowed(
    routing: RoutingOptions, principal: Principal, config: Config
) -> tuple[str, ...] | None:
    if routing.experts is None and principal.experts is None:
        return None
    chosen = routing.experts or list(config.experts)
    allowed = tuple(name for name in chosen if principal.may_ask(name))
    if not allowed:
        raise PermissionDenied("No expert is open to this key.", param="routing.experts")
    return allowed


def _check_seats(
    request: ChatRequest, routing: RoutingOptions, overrides: Overrides, config: Config
) -> None:
    """Refuse a mix for which the engine could never have room, whatever the router says."""
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


def _priority(routing: RoutingOptions, principal: Principal) -> int:
    priority, most = routing.priority or 0, principal.max_priority
    if priority > most:
        raise PermissionDenied(
            f"`routing.priority` is {priority}, this key may ask for at most {most}: ask for no "
            "more, or have the operator of this service raise the key's `max_priority`.",
            param="routing.priority",
        )
    return priority


def _grounding(routing: RoutingOptions, config: Config) -> Grounding:
    chosen = routing.grounding or config.retrieval.grounding
    if chosen is Grounding.REQUIRED and not config.retrieval.enabled:
        raise InvalidRequest(
            "`routing.grounding` is 'required', but retrieval is switched off in this service.",
            param="routing.grounding",
        )
    return chosen if config.retrieval.enabled else Grounding.OFF


def _collections(routing: RoutingOptions, principal: Principal) -> tuple[str, ...] | None:
    if routing.collections is None:
        return None
    for name in routing.collections:
        if not principal.may_read(name):
            raise PermissionDenied(
                f"The collection {name!r} is not open to this key.", param="routing.collections"
            )
    return tuple(routing.collections)
