"""What the engine of one base model has room for in one answer that mixes experts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shortage:
    """A key of the model that leaves room to mix `room` experts; `needed` would be enough."""

    room: int
    key: str
    needed: int


@dataclass(frozen=True)
class Seats:
    """Room for one answer, and the experts that may want it.

    Beside the `pinned` adapters `adapters` more may be loaded, and `rows` run together; of the
    `experts` of the model, `loose` have an adapter that is not pinned.
    """

    pinned: int
    adapters: int
    rows: int
    experts: int
    loose: int

    def shortages(self, count: int, mode: str) -> list[Shortage]:
        """What keeps some `count` of the experts from being mixed, the narrowest first.

        A blend is one row, a mixture one for each expert.
        """
        adapters, rows = min(count, self.loose), min(count, self.experts)
        found = []
        # Without any room no adapter but the pinned could be used at all: that is another fault.
        if 0 < self.adapters < adapters:
            found.append(Shortage(self.adapters, "resident_adapters", self.pinned + adapters))
        if mode == "mixture" and 0 < self.rows < rows:
            found.append(Shortage(self.rows, "max_rows", rows))
        return sorted(found, key=lambda shortage: shortage.room)
