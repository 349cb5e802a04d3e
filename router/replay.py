"""Replay: what a router would have decided on requests that a log remembers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from router.decision import Decision
from router.features import FEATURE_VERSION, Features, Skim
from router.logged_decision import LoggedDecision, Read
from router.overrides import OverrideError
from router.router import Router


class Unplayable(ValueError):
    """A logged decision that a router cannot decide anew; the message says why, in few words."""


def replay(router: Router, logged: LoggedDecision) -> tuple[str, ...]:
    """Return the experts that the router chooses for a logged request, heaviest first.

    From the features that were kept, in the situation of then, under the request's own overrides.
    Of what a first stage settled only the surface was kept: it is for the router's own to settle.
    Raises `Unplayable` where that cannot be done, or would say nothing about the router.
    """
    if logged.overrides.weights is not None:
        raise Unplayable("the caller set the weights")
    if logged.read is None:
        raise Unplayable("its features were not kept")
    try:
        return _decision(router, logged, logged.read).chosen
    except OverrideError as error:
        raise Unplayable("what the request asked for is no longer possible") from error


def recalled(read: Read, router: Router) -> Features:
    """Return logged features as this router reads them.

    Raises `Unplayable` where they were made in another way than its gate expects.
    """
    row = _numbers(read, router.gate.vector_dimensions)
    # The message itself is not there; the policy minds its length and nothing else.
    return Features(row[..., : read.dimensions], row[..., read.dimensions :], said="x" * read.said)


def _decision(router: Router, logged: LoggedDecision, read: Read) -> Decision:
    if read.dimensions:
        return router.decide(recalled(read, router), logged.overrides, logged.situation)
    # It was one message of one part: no other is settled.
    skimmed = Skim(("x" * read.said,), np.atleast_2d(_numbers(read, 0)), 1.0, "x" * read.said)
    settled = router.settle(skimmed, logged.overrides, logged.situation)
    if settled is None:
        raise Unplayable("the first stage settled it, and this version asks for a sentence vector")
    return settled


def _numbers(read: Read, dimensions: int) -> npt.NDArray[np.float32]:
    if (read.version, read.dimensions) != (FEATURE_VERSION, dimensions):
        raise Unplayable("its features are those of another encoder or release")
    try:
        return read.features().astype(np.float32)
    except ValueError as error:
        raise Unplayable("its features are damaged") from error


def reads_nothing(_texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """Stand in for the encoder of a router that only replays.

    Raises `Unplayable`: a log holds features, and nothing is to be encoded.
    """
    raise Unplayable("a replay encodes no text")
