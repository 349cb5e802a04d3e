"""A decision as a log keeps it: what the router saw, what acted, and what was said about it."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from router.decision import Decision
from router.draw import Draw
from router.overrides import Overrides
from router.provenance import Provenance
from router.situation import Situation

LEAST_PROBABILITY = 1e-4
"""Experts below it are left out of a log, unless they were chosen."""

HalfArray = npt.NDArray[np.float16]


@dataclass(frozen=True)
class Read:
    """What the gate read: its features as compressed float16, with what they were made by.

    They are [f] or [parts, f] (`shape`); `version` is `features.FEATURE_VERSION`, `encoder` names
    the sentence encoder, `dimensions` is the length of its vectors, 0 where the first stage settled
    it by the surface alone. `said` is the number of characters of the message that was answered.
    """

    packed: bytes
    shape: tuple[int, ...]
    version: str
    encoder: str
    dimensions: int
    said: int

    @classmethod
    def of(
        cls, features: HalfArray, *, version: str, encoder: str, dimensions: int, said: int
    ) -> Read:
        """Pack features."""
        packed = zlib.compress(np.ascontiguousarray(features, dtype="<f2").tobytes(), 1)
        return cls(packed, features.shape, version, encoder, dimensions, said)

    def features(self) -> HalfArray:
        """Unpack the features. Raises `ValueError` where they are damaged."""
        try:
            flat = np.frombuffer(zlib.decompress(self.packed), dtype="<f2")
        except zlib.error as error:
            raise ValueError(f"the features are damaged ({error}).") from error
        return flat.reshape(self.shape)


@dataclass(frozen=True)
class Opinion:
    """What was said about a decision: a score from -1 to 1, the expert that should have answered.

    None where that was not said. `at` is in seconds since 1970.
    """

    score: float | None
    expert: str | None
    comment: str | None
    at: float


@dataclass(frozen=True)
class LoggedDecision:
    """One row of a log. `at` is in seconds since 1970, `kind` what was asked for: chat or route.

    `probabilities` are those of the choice, `weights` those of the experts that acted, heaviest
    first. `key` names session or request, hashed. `read` and `text` (the last message of the user)
    are None where they were not kept. `latency` is the class of the answer's time, None where none
    was finished; `stood_in` tells that the generalist answered because the chosen could not, and
    `provenance` what the answer stood on, None where none was finished.
    """

    id: str
    tenant: str
    kind: str
    at: float
    key: str
    router_version: str
    probabilities: Mapping[str, float]
    weights: Mapping[str, float]
    draw: Draw
    abstained: bool
    overrides: Overrides
    situation: Situation
    read: Read | None
    text: str | None
    latency: str | None = None
    stood_in: bool = False
    opinion: Opinion | None = None
    provenance: Provenance | None = None

    @property
    def chosen(self) -> tuple[str, ...]:
        """The experts that acted, heaviest first."""
        return tuple(self.weights)

    @property
    def confidence(self) -> float:
        """The probability of the most probable expert."""
        return max(self.probabilities.values())

    @property
    def score(self) -> float | None:
        """The score that it got, if it got one."""
        return None if self.opinion is None else self.opinion.score


def draw_of(decision: Decision) -> Draw:
    """Return what chance had to do with a decision; without exploration its propensity is 1."""
    return decision.draw or Draw(0.0, decision.chosen)


def logged_probabilities(decision: Decision) -> dict[str, float]:
    """Return the probabilities that a log keeps, the most probable first."""
    chances = decision.ranking.chances
    places = np.flatnonzero(chances.array >= LEAST_PROBABILITY)
    likely = dict(zip(chances.names(places), chances.array[places].tolist(), strict=True))
    chosen = {name: chances[name] for name in decision.chosen}
    return dict(sorted({**likely, **chosen}.items(), key=lambda item: -item[1]))


def hashed(key: str) -> str:
    """Return sixteen hex digits that stand for a key."""
    return hashlib.blake2b(key.encode("utf-8", "replace"), digest_size=8).hexdigest()
