"""One request's text, read as far as somebody needs: at once, afterwards, or never."""

from __future__ import annotations

import threading

import numpy as np
import numpy.typing as npt

from router.decision import Decision
from router.features import Features, Skim, Vector
from router.overrides import Overrides
from router.router import Router
from router.situation import Situation


class Perusal:
    """What was skimmed of a request, and its features, which are read once and only if asked for.

    Every version of the router reads alike, so `router` reads for all of them. Threads may share
    it.
    """

    def __init__(
        self, skimmed: Skim, overrides: Overrides, situation: Situation, router: Router
    ) -> None:
        self._skim, self._router = skimmed, router
        self._overrides, self._situation = overrides, situation
        self._features: Features | None = None
        self._lock = threading.Lock()

    def decide(
        self, router: Router, started: float | None = None, *, whole: bool = False
    ) -> Decision:
        """Return a router's decision; its first stage may settle it unless the `whole` is asked."""
        given = (self._overrides, self._situation, started)
        settled = None if whole else router.settle(self._skim, *given)
        return router.decide(self.features(), *given) if settled is None else settled

    def features(self) -> Features:
        """Return what the gate reads; the first to ask waits for the encoder."""
        with self._lock:
            if self._features is None:
                self._features = self._router.read(self._skim)
            return self._features

    def vector(self) -> Vector:
        """Return the sentence vector [d]."""
        return self.features().vector

    def kept(self, decision: Decision) -> npt.NDArray[np.float16]:
        """Return what the decision was made from, for a log: the surface alone if no more was."""
        read = self._skim.surfaces if decision.stage == "first" else self.features().joined()
        return read.astype(np.float16)
