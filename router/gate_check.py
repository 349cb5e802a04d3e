"""Whether the arrays of a gate fit together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from router.gate_error import GateError
from router.surface import SURFACE_DIMENSIONS

if TYPE_CHECKING:
    from router.gate import Gate


def check_gate(gate: Gate) -> None:
    """Raise `GateError` for labels, arrays or numbers that cannot be a gate's."""
    if not gate.labels or len(set(gate.labels)) != len(gate.labels):
        raise GateError(f"labels: must be names that differ; got {gate.labels!r}.")
    _check_units(gate)
    if gate.vector_dimensions < 1:
        raise GateError(f"weight: {gate.weight.shape[1]} columns are too few for the features.")
    if not (np.isfinite(gate.weight).all() and np.isfinite(gate.bias).all()):
        raise GateError("weight and bias must be finite numbers.")
    if not (np.isfinite(gate.temperature) and gate.temperature > 0.0):
        raise GateError(f"temperature: must be above 0; got {gate.temperature!r}.")
    _check_vectors(gate)


def _check_units(gate: Gate) -> None:
    later = gate.taught.names if gate.taught else ()
    units = len(gate.rows) or len(gate.labels) - len(later)
    fits = (*dict.fromkeys(gate.units), *later) == gate.labels
    if (
        not fits
        or gate.weight.ndim != 2
        or len(gate.weight) != units
        or gate.bias.shape != (units,)
    ):
        raise GateError(
            f"weight {gate.weight.shape} and bias {gate.bias.shape} do not fit {units} labels "
            f"of {len(gate.labels)}."
        )
    if gate.first is not None and len(gate.first.bias) != units:
        raise GateError(f"first stage: it has {len(gate.first.bias)} units, the gate {units}.")
    if gate.background is not None and gate.background.logits.shape[1] != units:
        raise GateError(f"background: its logits are not of {units} units.")


def _check_vectors(gate: Gate) -> None:
    sizes = {gate.weight.shape[1] - SURFACE_DIMENSIONS}
    if gate.taught is not None:
        sizes.add(gate.taught.weight.shape[1])
    if gate.background is not None:
        sizes.add(gate.background.vectors.shape[1])
    if len(sizes) > 1:
        raise GateError(f"sentence vectors of several lengths: {sorted(sizes)}.")
