"""Replay: what a router would have decided on requests that a log remembers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from router.features import FEATURE_VERSION, Features
from router.logged_decision import LoggedDecision, Read
from router.overrides import OverrideError
from router.router import Router


class Unplayable(ValueError):
    """A logged decision that a router cannot decide anew; the message says why, in few words."""


def replay(router: Router, logged: LoggedDecision) -> tuple[str, ...]:
    """Return the experts that the router chooses for a logged request, heaviest first.

    From the features that were kept, in the situation of then, under the request's own overrides.
    Raises `Unplayable` where that cannot be done, or would say nothing about the router.
    """
    if logged.overrides.weights is not None:
        raise Unplayable("the caller set the weights")
    if logged.read is None:
        raise Unplayable("its features were not kept")
    features = recalled(logged.read, router)
    try:
        decision = router.decide(features, logged.overrides, logged.situation)
    except OverrideError as error:
        raise Unplayable("what the request asked for is no longer possible") from error
    return decision.chosen


def recalled(read: Read, router: Router) -> Features:
    """Return logged features as this router reads them.

    Raises `Unplayable` where they were made in another way than its gate expects.
    """
    if (read.version, read.dimensions) != (FEATURE_VERSION, router.gate.vector_dimensions):
        raise Unplayable("its features are those of another encoder or release")
    try:
        row = read.features().astype(np.float32)
    except ValueError as error:
        raise Unplayable("its features are damaged") from error
    # The message itself is not there; the policy minds its length and nothing else.
    return Features(row[..., : read.dimensions], row[..., read.dimensions :], said="x" * read.said)


def reads_nothing(_texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """Stand in for the encoder of a router that only replays.

    Raises `Unplayable`: a log holds features, and nothing is to be encoded.
    """
    raise Unplayable("a replay encodes no text")
