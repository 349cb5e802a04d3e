"""The state of a router in use: experts that nobody asks, that are asked the same, and drift."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from router.comparison import Estimate, wilson
from router.drift import Drift, measure_drift
from router.gate import Gate
from router.traffic_record import Record
from router.twins import Pair, cosines, find_pairs, prototypes

Array = npt.NDArray[np.float64]

MOST_PAIRS = 10


@dataclass(frozen=True)
class Use:
    """How often one expert was asked: `chosen` by the router, `named` by callers who set weights.

    `share` is that of the requests for which the router chose it, None without such requests.
    `dead` tells that nobody asked it; the share's upper bound says how sure that is.
    """

    name: str
    chosen: int
    named: int
    share: Estimate | None
    disabled: bool

    @property
    def dead(self) -> bool:
        """Whether the router never chose it and no caller named it, though both could."""
        return not self.disabled and self.chosen == 0 and self.named == 0 and bool(self.share)


@dataclass(frozen=True)
class Health:
    """What `requests` requests show, `sampled` of them with sentence vector and probabilities.

    `pairs` are the experts most alike, the most alike first. `drift` is None for a gate without a
    background.
    """

    requests: int
    sampled: int
    uses: tuple[Use, ...]
    pairs: tuple[Pair, ...]
    drift: Drift | None


def examine(
    records: Sequence[Record],
    gate: Gate,
    experts: Sequence[str],
    generalist: str,
    disabled: Sequence[str] = (),
) -> Health:
    """Return the state that the records of all routers show of the experts, in their order.

    `gate` is that of the version that acts: its prototypes and its background are looked at.
    """
    found = [sighting for record in records for sighting in record.sample]
    fits = [len(sighting.vector) == gate.vector_dimensions for sighting in found]
    whole = np.concatenate(
        [np.zeros((0, len(experts))), *(record.probabilities(experts) for record in records)]
    )[np.array(fits, dtype=np.bool_)]
    vectors = np.zeros((0, gate.vector_dimensions))
    if any(fits):
        kept = [sighting.vector for sighting, fit in zip(found, fits, strict=True) if fit]
        vectors = np.stack(kept).astype(np.float64)
    return Health(
        requests=sum(hour.requests for record in records for hour in record.hours),
        sampled=len(vectors),
        uses=_uses(records, experts, disabled),
        pairs=_pairs(gate, experts, disabled, whole),
        drift=None
        if gate.background is None
        else _drift(gate, experts, generalist, vectors, whole),
    )


def _uses(
    records: Sequence[Record], experts: Sequence[str], disabled: Sequence[str]
) -> tuple[Use, ...]:
    hours = [hour for record in records for hour in record.hours]
    chosen = sum((hour.chosen for hour in hours), Counter[str]())
    named = sum((hour.named for hour in hours), Counter[str]())
    requests = sum(hour.requests for hour in hours)
    return tuple(
        Use(
            name=name,
            chosen=chosen[name],
            named=named[name],
            share=wilson(chosen[name], requests) if requests else None,
            disabled=name in disabled,
        )
        for name in experts
    )


def _pairs(
    gate: Gate, experts: Sequence[str], disabled: Sequence[str], whole: Array
) -> tuple[Pair, ...]:
    enabled = [name for name in experts if name not in disabled]
    at = [place for place, name in enumerate(experts) if name not in disabled]
    return tuple(find_pairs(enabled, whole[:, at], _likeness(gate, enabled), MOST_PAIRS))


def _likeness(gate: Gate, names: Sequence[str]) -> Array:
    """Cosines [names, names] of prototypes; NaN where the gate knows none."""
    places: Mapping[str, int] = {label: place for place, label in enumerate(gate.labels)}
    found = np.full((len(names), len(names)), np.nan)
    if gate.background is not None:
        known = [at for at, name in enumerate(names) if name in places]
        rows = [places[names[at]] for at in known]
        found[np.ix_(known, known)] = cosines(prototypes(gate))[np.ix_(rows, rows)]
    return found


def _drift(
    gate: Gate, experts: Sequence[str], generalist: str, vectors: Array, whole: Array
) -> Drift:
    """Against the background; its leaders are those that the acting gate would choose now."""
    heir = experts.index(generalist)
    at = [experts.index(label) if label in experts else heir for label in gate.labels]
    shares = np.zeros((len(gate.known_background()), len(experts)))
    for place, column in enumerate(gate.background_probabilities().T):
        shares[:, at[place]] += column
    then = gate.known_background().vectors.astype(np.float64), shares.argmax(axis=1)
    return measure_drift((vectors, whole.argmax(axis=1)), then, len(experts))
