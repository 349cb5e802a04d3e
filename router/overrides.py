"""What a request may change about its routing, and the error for what it may not."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


class OverrideError(ValueError):
    """A routing value that cannot be obeyed; `param` is the key, as in `weights.legal`."""

    def __init__(self, param: str, message: str) -> None:
        super().__init__(param, message)
        self.param = param
        self.message = message

    def __str__(self) -> str:
        return f"{self.param}: {self.message}"


class UnknownExpert(OverrideError):
    """A name that is no expert of this router."""


@dataclass(frozen=True)
class Overrides:
    """A request's own routing values; None leaves the policy's in force.

    `experts` restricts the choice to the names given. `weights` (name to a number of 0 or more)
    replaces the choice: they are normalised to the sum 1 and obeyed. `max_cost` is in USD,
    `locale` a BCP 47 language tag, `preferences` are numbers from -1 to 1 by name (`leaning.py`).
    Raises `OverrideError` for values out of range.
    """

    top_k: int | None = None
    top_p: float | None = None
    min_confidence: float | None = None
    experts: tuple[str, ...] | None = None
    weights: Mapping[str, float] | None = None
    max_cost: float | None = None
    locale: str | None = None
    preferences: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        if self.top_k is not None:
            check_count("top_k", self.top_k)
        if self.top_p is not None:
            check_share("top_p", self.top_p, zero_allowed=False)
        if self.min_confidence is not None:
            check_share("min_confidence", self.min_confidence)
        if self.experts is not None and not self.experts:
            raise OverrideError("experts", "name at least one expert, or leave the key out.")
        if self.weights is not None:
            _check_weights(self.weights)
        if self.max_cost is not None:
            _check_amount("max_cost", self.max_cost)
        if self.locale is not None and not (isinstance(self.locale, str) and self.locale):
            raise OverrideError("locale", f"must be a language tag; got {self.locale!r}.")
        for name, value in (self.preferences or {}).items():
            if not _is_number(value) or not -1.0 <= value <= 1.0:
                message = f"must be a number from -1 to 1; got {value!r}."
                raise OverrideError(f"preferences.{name}", message)


def check_count(param: str, value: int) -> None:
    """Raise `OverrideError` unless `value` is a whole number of 1 or more."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise OverrideError(param, f"must be a whole number of 1 or more; got {value!r}.")


def check_share(param: str, value: float, *, zero_allowed: bool = True) -> None:
    """Raise `OverrideError` unless `value` lies between 0 and 1."""
    if not _is_number(value) or not 0.0 <= value <= 1.0 or (value == 0.0 and not zero_allowed):
        lowest = "0" if zero_allowed else "more than 0"
        raise OverrideError(param, f"must be a number from {lowest} to 1; got {value!r}.")


def check_known(param: str, names: Iterable[str], known: Iterable[str]) -> None:
    """Raise `UnknownExpert` for the first of `names` that is not among the `known`."""
    choices = list(known)
    strangers = [name for name in names if name not in choices]
    if strangers:
        there = f"there are {listed(choices)}."
        raise UnknownExpert(param, f"no expert {strangers[0]!r} here; {there}")


def listed(names: Sequence[str]) -> str:
    """Write names as a sentence does: "code, legal and general"."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _check_weights(weights: Mapping[str, float]) -> None:
    for name, weight in weights.items():
        _check_amount(f"weights.{name}", weight)
    if not any(weights.values()):
        raise OverrideError("weights", "at least one expert needs a weight above 0.")


def _check_amount(param: str, value: float) -> None:
    if not _is_number(value) or not math.isfinite(value) or value < 0.0:
        raise OverrideError(param, f"must be a finite number of 0 or more; got {value!r}.")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
