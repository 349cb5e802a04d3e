"""Standards: what a version is judged by before it may act."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from router.bars import Bar
from router.gate import Gate, GateError
from router.lineup import VersionError


@dataclass(frozen=True)
class Standards:
    """Bars on a version's report, and the experts of the configuration.

    `usable` raises `GateError` for a gate that no service of the configuration could serve.
    """

    bars: tuple[Bar, ...] = ()
    experts: tuple[str, ...] = ()
    disabled: tuple[str, ...] = ()
    usable: Callable[[Gate], object] = lambda _gate: None

    def require_usable(self, name: str, gate: Gate) -> None:
        """Raise `VersionError` where the gate of this version could not be served."""
        try:
            self.usable(gate)
        except GateError as error:
            raise VersionError(f"version {name} cannot act here: {error}") from error
