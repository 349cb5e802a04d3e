"""What the sections of a configuration say against each other.

Told from the body as it was written, so that these faults are listed beside all others: nothing
here may rely on a value having been checked, and what is no mapping or no text is passed over.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import PydanticCustomError

from orchestrator.deployment import DeploymentConfig
from orchestrator.seats import Seats
from orchestrator.strict_model import refuse

Body = Mapping[str, Any]
RESIDENT_ADAPTERS = 64
MAX_ROWS = 32
TOP_K = 2


def conflicts(body: Body) -> Iterator[PydanticCustomError]:
    """One error for each fault, with its key from the root of the file."""
    experts = {
        str(name): expert
        for name, expert in _mapping(body.get("experts")).items()
        if isinstance(expert, Mapping)
    }
    models = body.get("models")
    if isinstance(models, Mapping) and models:
        yield from _unknown_models(experts, models)
        yield from _too_many_pinned(experts, models)
        yield from _too_few_seats(experts, models, body)
    if experts:
        yield from _wrong_generalist(experts, body.get("generalist", "general"))
        yield from _disabled_generalist(experts, body.get("generalist", "general"))
    yield from _fruitless_exploration(body)
    yield from _evidence_of_nothing(body)
    if "auto" in experts:
        what = "is a reserved name, it asks for routing: choose another"
        yield refuse("reserved", "experts.auto", what)
    if body.get("placement", "together") == "together":
        yield from _differing_deployments(experts)


def _unknown_models(experts: Mapping[str, Body], models: Body) -> Iterator[PydanticCustomError]:
    known = [str(name) for name in models]
    for name, expert in experts.items():
        model = expert.get("model")
        if isinstance(model, str) and model not in known:
            what = f"is {model!r}, which is none of `models`: name one of {', '.join(known)}"
            yield refuse("unknown_model", f"experts.{name}.model", f"{what}, or add it there")


def _too_many_pinned(experts: Mapping[str, Body], models: Body) -> Iterator[PydanticCustomError]:
    """Pinned adapters must fit, with a place more where others are to be loaded."""
    for model, settings in models.items():
        places = _mapping(settings).get("resident_adapters", RESIDENT_ADAPTERS)
        mine = [e for e in experts.values() if e.get("model") == model and e.get("adapter")]
        pinned = sum(expert.get("pinned") is True for expert in mine)
        needed = pinned + (pinned < len(mine))
        if pinned and type(places) is int and 1 <= places < needed:
            what = f"is {places}, but {pinned} of {len(mine)} adapters are pinned"
            fix = f"set {needed} or more, or pin fewer"
            yield refuse("pinned", f"models.{model}.resident_adapters", f"{what}: {fix}")


def _too_few_seats(
    experts: Mapping[str, Body], models: Body, body: Body
) -> Iterator[PydanticCustomError]:
    """Whatever experts the router may choose, their engine must be able to mix them."""
    top_k = _mapping(body.get("router")).get("top_k", TOP_K)
    mode = str(_mapping(body.get("combination")).get("mode", "mixture"))
    for model, settings in models.items():
        seats = _seats(experts, model, _mapping(settings))
        for short in seats.shortages(top_k, mode) if seats and type(top_k) is int else ():
            what = f"does not suffice to mix as many experts as `router.top_k` allows, {top_k}"
            fix = f"set it to {short.needed} or more, or `router.top_k` to {short.room}"
            yield refuse("seats", f"models.{model}.{short.key}", f"{what}: {fix}")


def _seats(experts: Mapping[str, Body], model: str, settings: Body) -> Seats | None:
    places = settings.get("resident_adapters", RESIDENT_ADAPTERS)
    rows = settings.get("max_rows", MAX_ROWS)
    mine = [expert for expert in experts.values() if expert.get("model") == model]
    adapted = [expert for expert in mine if expert.get("adapter")]
    pinned = sum(expert.get("pinned") is True for expert in adapted)
    if type(places) is not int or type(rows) is not int:
        return None
    return Seats(pinned, places - pinned, rows, len(mine), len(adapted) - pinned)


def _wrong_generalist(experts: Mapping[str, Body], chosen: object) -> Iterator[PydanticCustomError]:
    able = [name for name, expert in experts.items() if expert.get("adapter") is None]
    if isinstance(chosen, str) and chosen not in able:
        choice = ", ".join(able) or "there is none, add one"
        what = f"is {chosen!r}; it must name an expert without adapter: {choice}"
        yield refuse("generalist", "generalist", what)


def _disabled_generalist(
    experts: Mapping[str, Body], chosen: object
) -> Iterator[PydanticCustomError]:
    if isinstance(chosen, str) and experts.get(chosen, {}).get("enabled") is False:
        what = "is false, but this is the generalist, who answers when nobody else can"
        yield refuse("disabled", f"experts.{chosen}.enabled", f"{what}: enable it, or name another")


def _differing_deployments(experts: Mapping[str, Body]) -> Iterator[PydanticCustomError]:
    """Placed together, experts of one base may set one deployment, and others leave it out."""
    default = DeploymentConfig()
    first: dict[str, tuple[str, DeploymentConfig]] = {}
    for name, expert in experts.items():
        model, settings = expert.get("model"), _deployment(expert)
        if isinstance(model, str) and settings is not None and settings != default:
            holder, counts = first.setdefault(model, (name, settings))
            if settings != counts:
                keys = ", ".join(_differences(settings.model_dump(), counts.model_dump()))
                yield refuse(
                    "differing",
                    f"experts.{name}.deployment",
                    f"differs from `experts.{holder}.deployment` in {keys}, but placed together "
                    f"the experts of model {model!r} share one deployment: give them equal "
                    "settings, set them at one expert only, or set `placement: apart`",
                )


def _fruitless_exploration(body: Body) -> Iterator[PydanticCustomError]:
    rate = _mapping(body.get("router")).get("explore", 0)
    kept = _mapping(body.get("feedback")).get("enabled", True)
    if isinstance(rate, int | float) and rate > 0 and kept is False:
        what = f"is {rate}, but `feedback.enabled` is false: nobody would learn from it"
        yield refuse("explore", "router.explore", f"{what}. Switch on the one, or off the other")


def _evidence_of_nothing(body: Body) -> Iterator[PydanticCustomError]:
    searched = _mapping(body.get("retrieval")).get("enabled", True)
    if _mapping(body.get("router")).get("evidence") is True and searched is False:
        what = "is true, but `retrieval.enabled` is false: nothing would be found"
        yield refuse("evidence", "router.evidence", f"{what}. Switch on the one, or off the other")


def _deployment(expert: Body) -> DeploymentConfig | None:
    try:
        return DeploymentConfig.model_validate(expert.get("deployment", {}))
    except ValidationError:
        # It is listed with its own faults.
        return None


def _differences(one: Body, other: Body, above: str = "") -> Iterator[str]:
    for key in dict.fromkeys((*one, *other)):
        mine, theirs = one.get(key), other.get(key)
        if isinstance(mine, Mapping) and isinstance(theirs, Mapping):
            yield from _differences(mine, theirs, f"{above}{key}.")
        elif mine != theirs:
            yield f"`{above}{key}`"


def _mapping(value: object) -> Body:
    return value if isinstance(value, Mapping) else {}
