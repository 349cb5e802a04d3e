"""The note in which a collection keeps the weight of meaning against words that it was tuned to."""

from __future__ import annotations

import json

FUSION_NOTE = "fusion"
"""Name of the note."""


def weight_note(weight: float) -> str:
    """Return the note of a weight in 0..1."""
    return json.dumps({"dense_weight": weight})


def tuned_weight(note: str | None) -> float | None:
    """Return the weight that a note holds, None without one."""
    return None if note is None else float(json.loads(note)["dense_weight"])
