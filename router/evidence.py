"""Retrieval evidence: an expert whose collections hold something close is the likelier one.

The gate cannot know the names in private collections; a search finds them. Of the best cosine s of
an expert's collections, the log odds of the expert are shifted by slope · max(0, s − centre). The
generalist answers what is in no collection, and gains nothing. An expert that the gate gives little
or nothing, because it never saw its domain, gets a small share to start from:

    p' ∝ p · e^shift + `UNSEEN` · (e^shift − 1)

which is p where there is no shift, and grows with it without a jump. `collegium train evidence`
sets slope and centre.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from router.chances import Array, Chances

if TYPE_CHECKING:
    from router.policy import Policy

UNSEEN = 0.01
"""What an expert that the gate gives nothing starts from, as a share of all probability."""

EVIDENCE_FILE = "evidence.json"


class EvidenceError(ValueError):
    """Slope and centre that cannot be read or set; the message says what to do."""


@dataclass(frozen=True)
class Scale:
    """How similarities become log odds: `slope` is in nats per unit of cosine above `centre`.

    `metadata` is free (rows, figures). Raises `EvidenceError` for values out of range.
    """

    slope: float
    centre: float
    metadata: Mapping[str, Any] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        if not (math.isfinite(self.slope) and self.slope >= 0.0):
            raise EvidenceError(f"slope: must be a finite number of 0 or more; got {self.slope!r}.")
        if not -1.0 <= self.centre <= 1.0:
            raise EvidenceError(f"centre: must be a number from -1 to 1; got {self.centre!r}.")

    def shift(self, similarity: float) -> float:
        """Return the shift (nats) for the best cosine of an expert's collections."""
        return self.slope * max(0.0, similarity - self.centre)

    def save(self, folder: Path) -> Path:
        """Write `EVIDENCE_FILE` into a folder, which is made if need be, and return its path."""
        folder.mkdir(parents=True, exist_ok=True)
        body = {"slope": self.slope, "centre": self.centre, **self.metadata}
        path = folder / EVIDENCE_FILE
        whole = path.with_suffix(".new")
        whole.write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")
        whole.replace(path)
        return path

    @classmethod
    def load(cls, folder: Path) -> Scale:
        """Read what `save` wrote; `DEFAULT_SCALE` where there is none. Raises `EvidenceError`."""
        path = folder / EVIDENCE_FILE
        try:
            body = json.loads(path.read_text(encoding="utf-8"))
            slope, centre = float(body.pop("slope")), float(body.pop("centre"))
        except FileNotFoundError:
            return DEFAULT_SCALE
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise EvidenceError(
                f"{path}: not what `collegium train evidence` writes ({error!r}). Run it again, or "
                "delete the file."
            ) from error
        return cls(slope, centre, body)


DEFAULT_SCALE = Scale(slope=25.0, centre=0.45)
"""In force until `collegium train evidence` has set another."""


@dataclass(frozen=True)
class Clue:
    """The best cosine that a search found for an expert, and in which collection."""

    collection: str
    similarity: float


@dataclass(frozen=True)
class Hint:
    """What a clue did: the expert's probability `before` evidence, and `after` all of it."""

    expert: str
    collection: str
    similarity: float
    before: float
    after: float


@dataclass(frozen=True)
class SecondStage:
    """What a decision takes along, so that it can be made again with evidence.

    `policy` and `scale` are those of the router that decided, `notes` what leaned the gate.
    """

    policy: Policy
    scale: Scale
    notes: tuple[str, ...] = ()


def raised(probabilities: Mapping[str, float], shifts: Mapping[str, float]) -> Chances:
    """Return the probabilities with those of some names shifted (nats, 0 or more), summing to 1."""
    chances = Chances.of(probabilities)
    places = [chances.roster.places[name] for name in shifts if name in chances.roster.places]
    nats = np.zeros_like(chances.array)
    nats[places] = [shift for name, shift in shifts.items() if name in chances.roster.places]
    return Chances(chances.roster, raised_array(chances.array, nats))


def raised_array(probabilities: Array, nats: npt.NDArray[np.float64]) -> Array:
    """Return the same for arrays [..., names] of probabilities and shifts."""
    # No power is above 1, so that nothing overflows.
    most = nats.max(axis=-1, keepdims=True)
    powers, rest = np.exp(nats - most), np.exp(-most)
    mass = probabilities * powers + UNSEEN * (powers - rest)
    return np.asarray(mass / mass.sum(axis=-1, keepdims=True), dtype=np.float64)
