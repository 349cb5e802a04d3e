"""What goes into the file of kept answers, and what comes out of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Entry:
    """An answer to be kept under its key.

    Without `kin` and the question's `vector` it serves its own question only. `sense` and `agreed`
    are as in `likeness.Kin`.
    """

    key: str
    tenant: str
    body: str
    kin: str | None = None
    vector: Vector | None = None
    sense: str = ""
    agreed: float = 0.5


@dataclass(frozen=True)
class Relative:
    """A kept answer as far as it takes part in comparisons."""

    id: int
    vector: Vector
    sense: str
    agreed: float


@dataclass(frozen=True)
class Lesson:
    """A comparison with an answer of a sense: what was seen of it, and whether it was the same.

    `features` are those of a `Likeness`. `id` is 0 until it is kept.
    """

    kin: str
    sense: str
    features: Sequence[float]
    same: bool
    id: int = 0


@dataclass(frozen=True)
class StoreBounds:
    """The most rows, bytes of answers, and seconds that one is kept."""

    rows: int
    bytes: int
    seconds: float
