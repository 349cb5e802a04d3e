"""How like a new question is to those that were answered before, and what came of such likeness.

Answered questions of one kin may stand for one another: all but their words is the same. Those with
the same answer share a sense.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float32]

NEIGHBOURS = 10
"""Earlier questions that have a say about a new one."""

UNKNOWN = 0.5
"""How an answer that was compared with nothing counts among its neighbours."""

_WIDTH = 0.05
_STRANGER = 0.05
_FARTHEST = 0.3
_ROOM = 16


@dataclass(frozen=True)
class Likeness:
    """The earlier question that is nearest, by its answer's id and sense, and what speaks for it.

    `similarity` is the cosine, `margin` how much larger it is than that of any other sense,
    `agreeing` how many more neighbours have the same sense, `vote` their share by nearness,
    `trust` the share of neighbours whose own nearest question had their answer when they came;
    `right` and `wrong` count earlier comparisons with this sense.
    """

    answer: int
    sense: str
    similarity: float
    margin: float
    agreeing: int
    vote: float
    trust: float
    right: int
    wrong: int

    def features(self) -> list[float]:
        """What the risk is learnt from, the constant included; see `HitRisk`."""
        return [
            1.0,
            (self.similarity - 0.75) / 0.1,
            min(self.margin, _FARTHEST) / 0.1,
            float(np.log1p(self.agreeing)),
            float(np.log1p(self.right)),
            float(np.log1p(self.wrong)),
            float(np.log(self.vote / (1.0 - self.vote))),
            4.0 * self.trust - 2.0,
        ]


class Kin:
    """The answered questions of one kin, with the ids and senses of their answers."""

    def __init__(self) -> None:
        self._ids: list[int] = []
        self._codes: dict[str, int] = {}
        self._names: list[str] = []
        self._senses = np.empty(0, np.int64)
        self._agreed = np.empty(0, np.float32)
        self._vectors = np.empty((0, 0), np.float32)
        self._right: Counter[str] = Counter()
        self._wrong: Counter[str] = Counter()

    @property
    def ids(self) -> Sequence[int]:
        """The ids of the answers that take part, in the order in which they came."""
        return self._ids

    def add(self, answer: int, vector: Vector, sense: str, agreed: float = UNKNOWN) -> None:
        """Take in an answered question by its unit vector [d].

        `agreed` is 1 where its nearest earlier question had the same sense, 0 where not.
        """
        count = len(self._ids)
        if count == len(self._vectors):
            self._grow(max(_ROOM, 2 * count), len(vector))
        self._vectors[count], self._agreed[count] = vector, agreed
        if sense not in self._codes:
            self._codes[sense] = len(self._names)
            self._names.append(sense)
        self._senses[count] = self._codes[sense]
        self._ids.append(answer)

    def retain(self, answers: set[int]) -> None:
        """Let go of all others."""
        kept = [place for place, answer in enumerate(self._ids) if answer in answers]
        if len(kept) < len(self._ids):
            self._vectors, self._agreed = self._vectors[kept], self._agreed[kept]
            self._senses = self._senses[kept]
            self._ids = [self._ids[place] for place in kept]

    def note(self, sense: str, *, same: bool) -> None:
        """Count a comparison with an answer of this sense."""
        (self._right if same else self._wrong)[sense] += 1

    def likeness(self, vector: Vector) -> Likeness | None:
        """The nearest of them to a unit vector [d], None where there is none."""
        count = len(self._ids)
        if not count:
            return None
        similar, senses = self._vectors[:count] @ vector, self._senses[:count]
        near = np.argpartition(-similar, min(NEIGHBOURS, count) - 1)[:NEIGHBOURS]
        first = near[similar[near].argmax()]
        shares = np.exp((similar[near] - similar[first]) / _WIDTH)
        same = senses[near] == senses[first]
        others = similar[senses != senses[first]]
        sense = self._names[int(senses[first])]
        return Likeness(
            answer=self._ids[first],
            sense=sense,
            similarity=float(similar[first]),
            margin=float(similar[first] - others.max(initial=0.0)),
            agreeing=int(same.sum()) - 1,
            vote=float(shares[same].sum() / (shares.sum() + _STRANGER)),
            trust=float((self._agreed[near].sum() + UNKNOWN) / (len(near) + 1)),
            right=self._right[sense],
            wrong=self._wrong[sense],
        )

    def _grow(self, room: int, width: int) -> None:
        count = len(self._ids)
        vectors, senses = np.empty((room, width), np.float32), np.empty(room, np.int64)
        agreed = np.empty(room, np.float32)
        if count:
            vectors[:count], senses[:count] = self._vectors, self._senses
            agreed[:count] = self._agreed
        self._vectors, self._senses, self._agreed = vectors, senses, agreed
