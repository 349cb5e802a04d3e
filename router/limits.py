"""What a request may cost and how long it may wait, held against each expert."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from router.overrides import OverrideError, Overrides
from router.situation import Situation

# Sums of prices are no exact decimals: a request that costs what is allowed must pass.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Limits:
    """`max_cost` (USD) over the estimates `costs`, `seconds_left` over the queues `waits`.

    None is no limit; an expert without an estimate costs nothing, one without a queue is free.
    """

    max_cost: float | None = None
    costs: Mapping[str, float] = field(default_factory=dict)
    seconds_left: float | None = None
    waits: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, overrides: Overrides, situation: Situation) -> "Limits":
        """Return the limits of a request in its situation."""
        return cls(overrides.max_cost, situation.costs, situation.seconds_left, situation.waits)

    @property
    def _most(self) -> float:
        return math.inf if self.max_cost is None else self.max_cost * (1.0 + _ROUNDING)

    def cost(self, names: Sequence[str]) -> float:
        """Return the estimate (USD) for these experts together."""
        return sum(self.costs.get(name, 0.0) for name in names)

    def fits(self, names: Sequence[str]) -> bool:
        """Tell whether these experts together cost no more than is allowed."""
        return self.max_cost is None or self.cost(names) <= self._most

    def affordable(self, names: Sequence[str]) -> list[str]:
        """Return those that fit alone.

        Raises `OverrideError` where none does: it says what the cheapest is estimated at.
        """
        most = self._most
        found = [name for name in names if self.costs.get(name, 0.0) <= most]
        if not found:
            cheapest = min(names, key=lambda name: self.costs.get(name, 0.0))
            raise self._too_dear(f"the cheapest expert here, {cheapest}, is", [cheapest])
        return found

    def check(self, names: Sequence[str]) -> None:
        """Raise `OverrideError` where these experts, which the caller named, do not fit."""
        if not self.fits(names):
            raise self._too_dear(
                f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'}", names
            )

    def is_late(self, name: str) -> bool:
        """Tell whether the expert's queue is longer than the time that is left."""
        return self.seconds_left is not None and self.waits.get(name, 0.0) > self.seconds_left

    def _too_dear(self, who: str, names: Sequence[str]) -> OverrideError:
        return OverrideError(
            "max_cost",
            f"{dollars(self.max_cost or 0.0)} is too little: {who} estimated at "
            f"{dollars(self.cost(names))}. Raise it, ask for fewer `max_tokens`, or shorten "
            "`messages`.",
        )


def dollars(amount: float) -> str:
    """Write an amount with as many digits as a fraction of a cent needs: "0.00012 USD"."""
    return f"{amount:.9f}".rstrip("0").rstrip(".") + " USD"
