"""A task: a request after it was checked against the configuration and the caller's rights."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from experts.generation import Sampling
from orchestrator.conditions import asked_condition
from orchestrator.config import Config
from orchestrator.conversation import Conversation, Messages
from orchestrator.errors import InvalidRequest, NotFound, PermissionDenied
from orchestrator.identity import Principal
from orchestrator.mix import check_seats
from orchestrator.request import (
    AUTO,
    LONGEST_SESSION,
    CacheUse,
    ChatRequest,
    Grounding,
    Mode,
    Role,
    RoutingOptions,
    Weighting,
)
from retrieval.filters import EVERYTHING, Condition
from router.overrides import Overrides

_ANSWER, _DECISION = "chatcmpl-", "dec-"


@dataclass(frozen=True)
class Task:
    """What the pipeline needs to know of a request. `deadline` is on the monotonic clock.

    `store` is false where the caller wants nothing of what was said kept. `messages` are those for
    experts; `read`, `question` and `attached` are of the `Conversation`, None where nothing is
    attached.
    """

    id: str
    model: str
    messages: Messages
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
    session: str | None = None
    store: bool = True
    cache: CacheUse = CacheUse.USE
    read: Messages | None = None
    question: str | None = None
    attached: tuple[str, ...] = ()
    condition: Condition = EVERYTHING

    @property
    def heard(self) -> Messages:
        """The messages as the router reads them."""
        return self.messages if self.read is None else self.read

    @property
    def query(self) -> str:
        """The last thing that the user wrote, to search by."""
        return self.said if self.question is None else self.question

    @property
    def said(self) -> str:
        """The last message of the user, what is attached included."""
        return next((text for role, text in reversed(self.heard) if role == Role.USER), "")

    @property
    def key(self) -> str:
        """What decides whether a canary version of the router acts: a session keeps its version."""
        return self.id if self.session is None else f"{self.principal.tenant}\n{self.session}"

    @property
    def decision_id(self) -> str:
        """The name of the decision on it: the answer's own, with another beginning."""
        return decision_id(self.id)

    @property
    def forced(self) -> bool:
        """Whether the caller gave the weights."""
        return self.overrides.weights is not None


def accept(
    request: ChatRequest, principal: Principal, config: Config, session: str | None = None
) -> Task:
    """Check a request against configuration and rights; `session` is that of the HTTP header.

    Raises:
        InvalidRequest, NotFound, PermissionDenied: with the key at fault.
    """
    routing = request.routing or RoutingOptions()
    conversation = Conversation.of(request.messages, config.limits)
    started = time.monotonic()
    overrides = _overrides(request, routing, principal, config)
    check_seats(request, routing, overrides, config)
    return Task(
        id=f"{_ANSWER}{secrets.token_hex(12)}",
        model=request.model,
        messages=conversation.written,
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
        session=_session(routing, session),
        store=request.store is not False,
        cache=routing.cache or CacheUse.USE,
        read=conversation.read,
        question=conversation.question,
        attached=conversation.attached,
        condition=asked_condition(routing.filter, "routing.filter"),
    )


def decision_id(name: str) -> str:
    """The name of a decision, by itself or by that of its answer."""
    return name.replace(_ANSWER, _DECISION, 1) if name.startswith(_ANSWER) else name


def model_names(config: Config, principal: Principal) -> list[str]:
    """What may stand in `model`: `auto` and the enabled experts that the caller may ask."""
    enabled = (name for name, expert in config.experts.items() if expert.enabled)
    return [AUTO, *(name for name in enabled if principal.may_ask(name))]


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
    origin = "model" if request.model != AUTO else "routing"
    for name, key in _named(weights or {}, routing, origin):
        if name not in config.experts:
            known = ", ".join(model_names(config, principal))
            raise NotFound(
                f"`{key}` names the expert {name!r}, which does not exist. Known: {known}. "
                "Several are joined by `+`.",
                param=key,
            )
        if not principal.may_ask(name):
            raise PermissionDenied(f"The expert {name!r} is not open to this key.", param=key)
        if not config.experts[name].enabled:
            known = ", ".join(model_names(config, principal))
            raise NotFound(
                f"`{key}` names the expert {name!r}, which is disabled in this service. "
                f"Enabled: {known}.",
                param=key,
                code="expert_disabled",
            )
    return Overrides(
        top_k=routing.top_k,
        top_p=routing.top_p,
        min_confidence=routing.min_confidence,
        experts=_allowed(routing, principal, config),
        weights=weights,
        max_cost=routing.max_cost,
        locale=routing.locale,
        preferences=routing.preferences,
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


def _named(
    weights: Mapping[str, float], routing: RoutingOptions, origin: str
) -> Iterator[tuple[str, str]]:
    """Every expert that the request names, with the key that names it."""
    for name in weights:
        yield name, origin if origin == "model" else f"routing.weights.{name}"
    for name in routing.experts or ():
        yield name, "routing.experts"
    for name in routing.preferences or ():
        yield name, f"routing.preferences.{name}"


def _allowed(
    routing: RoutingOptions, principal: Principal, config: Config
) -> tuple[str, ...] | None:
    if routing.experts is None and principal.experts is None:
        return None
    chosen = routing.experts or list(config.experts)
    allowed = tuple(n for n in chosen if principal.may_ask(n) and config.experts[n].enabled)
    if not allowed:
        raise PermissionDenied("No expert is open to this key.", param="routing.experts")
    return allowed


def _priority(routing: RoutingOptions, principal: Principal) -> int:
    priority, most = routing.priority or 0, principal.max_priority
    if priority > most:
        raise PermissionDenied(
            f"`routing.priority` is {priority}, this key may ask for at most {most}: ask for no "
            "more, or have the operator of this service raise the key's `max_priority`.",
            param="routing.priority",
        )
    return priority


def _session(routing: RoutingOptions, header: str | None) -> str | None:
    if header is None:
        return routing.session
    if not 1 <= len(header) <= LONGEST_SESSION:
        raise InvalidRequest(
            f"the header `x-session-id` has {len(header)} characters, 1 to {LONGEST_SESSION} are "
            "allowed.",
            param="x-session-id",
        )
    if routing.session not in (None, header):
        raise InvalidRequest(
            "`routing.session` and the header `x-session-id` name two sessions: leave one out.",
            param="routing.session",
        )
    return header


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
