"""Whether the gate knows what it does not know: prompts outside all domains rank apart."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from router.dataset import LabelledPrompt
from router.evaluation import read
from router.features import Encoder
from router.gate import Gate
from router.intervals import RESAMPLES, Interval, bootstrap
from router.scores import auroc
from router.trials import Flags, Floats, Indices


@dataclass(frozen=True)
class Novelty:
    """How well a gate tells `outside` rows from `inside` ones by its own unfamiliarity.

    `auroc` is the share of pairs in which the row outside is the less familiar one; `by_family`
    the same for each family of sources of the rows outside, all rows inside against it.
    """

    outside: int
    inside: int
    auroc: Interval
    by_family: dict[str, float]


def unfamiliarity(
    gate: Gate, rows: Sequence[LabelledPrompt], encoder: Encoder, generalist: str
) -> Floats:
    """[n] 1 less the probability of the label unit that is surest, the generalist's left out.

    Each label's unit is a judgement of its own, so all may be low, which shared probabilities
    cannot be.
    """
    units = np.exp(read(rows, encoder).scores(gate, generalist))
    experts = [place for place, label in enumerate(gate.labels) if label != generalist]
    return np.asarray(1.0 - units[:, experts].max(axis=1), dtype=np.float64)


def outside(rows: Sequence[LabelledPrompt], generalist: str) -> Flags:
    """[n] whether a row belongs to no expert: its only label is the generalist."""
    return np.array([row.labels == (generalist,) for row in rows], dtype=np.bool_)


def without(rows: Sequence[LabelledPrompt], generalist: str) -> list[LabelledPrompt]:
    """Return the rows that a gate which must not know the generalist's domain may learn from."""
    return [row for row in rows if generalist not in row.labels]


def measure_novelty(
    gate: Gate,
    rows: Sequence[LabelledPrompt],
    encoder: Encoder,
    generalist: str,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Novelty | None:
    """Return the figures of a gate on rows with one label; None where one side has no rows."""
    single = [row for row in rows if len(row.labels) == 1]
    is_outside = outside(single, generalist)
    if is_outside.all() or not is_outside.any():
        return None
    scores = unfamiliarity(gate, single, encoder, generalist)
    families = [row.family for row in single]
    known = scores[~is_outside]

    def statistic(at: Indices) -> float:
        return auroc(scores[at][is_outside[at]], scores[at][~is_outside[at]])

    sides = ["outside" if side else "inside" for side in is_outside.tolist()]
    return Novelty(
        outside=int(is_outside.sum()),
        inside=len(known),
        auroc=bootstrap(statistic, sides, resamples, seed),
        by_family={
            name: auroc(_of(name, families, scores, is_outside), known)
            for name in sorted(
                {name for name, side in zip(families, is_outside.tolist(), strict=True) if side}
            )
        },
    )


def _of(name: str, families: Sequence[str], scores: Floats, is_outside: Flags) -> Floats:
    same = np.array([family == name for family in families], dtype=np.bool_)
    return scores[same & is_outside]
