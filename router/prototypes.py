"""A linear discriminant of one domain against the background, from a few example vectors.

The log odds of a vector x are w·x + b with w = Σ⁻¹(μ − μ₀), where μ and μ₀ are the means of the
examples and of the background and Σ is the covariance within both, shrunk towards a multiple of the
identity as far as Ledoit and Wolf estimate (A well-conditioned estimator for large-dimensional
covariance matrices, 2004). With more dimensions than examples such odds are far too sure, so slope
and bias are set by Platt scaling (Probabilistic outputs for support vector machines, 1999) on
scores that no row has taken part in: each example is left out once, the background in parts.

The background may hold prompts of the domain, which others answered so far. Held against them, the
prototype would shun its own. Rows with odds as high as those of three quarters of the examples are
taken for such and left out, but no more than three for each one above a quarter of the examples: so
many are there if they are of the domain. Of a neighbour's tail the high ones are fewer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

LEAST_EXAMPLES = 20
PARTS = 8
CLEAR = 0.85
"""The share of pairs, example and background row, from which on the domain stands out."""

_STEPS = 100
_STILL = 1e-10


class PrototypeError(ValueError):
    """Examples that no prototype can be made of; the message says why and what to do."""


@dataclass(frozen=True, eq=False)
class Prototype:
    """Log odds `weight`·x + `bias` of one domain against the background, and its `mean` vector.

    `held_out` [examples] are the log odds of each example by the prototype of the others,
    `background` [rows] those of each row of the background by one that it took no part in. `alike`
    [rows] tells which of them were taken for the domain's own and left out.
    """

    weight: Array
    bias: float
    mean: Array
    held_out: Array
    background: Array
    alike: Flags


@dataclass(frozen=True, eq=False)
class Cloud:
    """What a covariance needs to know of some rows: number, mean [d], summed squares [d, d]."""

    count: int
    mean: Array
    scatter: Array

    @classmethod
    def of(cls, rows: Array) -> Cloud:
        """Return that of these rows [n, d]."""
        mean = rows.mean(axis=0)
        centred = rows - mean
        return cls(len(rows), mean, centred.T @ centred)


def fit_prototype(examples: Array, background: Array, share: float) -> Prototype:
    """Return the prototype of `examples` [n, d] against `background` [m, d].

    `share` is the part of the traffic that the domain is taken to have before anything is read.
    Raises `PrototypeError` for fewer than `LEAST_EXAMPLES` rows, a background too small to leave
    parts of it out, or examples that are not nearer to each other than to the background.
    """
    if len(examples) < LEAST_EXAMPLES:
        raise PrototypeError(
            f"{len(examples)} examples are too few: give at least {LEAST_EXAMPLES} different ones. "
            "With fewer, leaving one out changes the mean too much to tell how many of its own "
            "prompts an expert would get."
        )
    own = _alike(examples, background)
    rest = background[~own]
    if len(rest) < 2 * PARTS:
        raise PrototypeError(f"a background of {len(rest)} rows is too small to compare with.")
    amount = shrinkage(np.concatenate([_centred(examples), _centred(rest)]))
    held_out, others = left_out(examples, rest, amount)
    slope, offset = calibrate(held_out, others, share)
    weight, bias = discriminant(Cloud.of(examples), Cloud.of(rest), amount)
    odds = np.empty(len(background))
    odds[own], odds[~own] = background[own] @ weight + bias, others
    return Prototype(
        weight=slope * weight,
        bias=slope * bias + offset,
        mean=examples.mean(axis=0),
        held_out=slope * held_out + offset,
        background=slope * odds + offset,
        alike=own,
    )


def _alike(examples: Array, background: Array) -> Flags:
    """Which rows [m] of the background are of the domain, by their looks."""
    own = np.zeros(len(background), dtype=np.bool_)
    if len(background) < 2 * PARTS:
        return own
    amount = shrinkage(np.concatenate([_centred(examples), _centred(background)]))
    ours, theirs = left_out(examples, background, amount)
    if (ours[:, None] > theirs).mean() >= CLEAR:
        low, high = np.quantile(ours, (0.25, 0.75))
        count = min(int((theirs >= low).sum()), 3 * int((theirs >= high).sum()))
        own[np.argsort(-theirs, kind="stable")[:count]] = True
    return own


def shrinkage(centred: Array) -> float:
    """Return how far, from 0 to 1, the covariance of rows [n, d] of mean 0 is to be shrunk.

    Ledoit and Wolf's estimate of what minimises the expected squared error.
    """
    rows, dimensions = centred.shape
    covariance = centred.T @ centred / rows
    size = float((covariance**2).sum())
    distance = size - float(np.trace(covariance)) ** 2 / dimensions
    noise = (float(((centred**2).sum(axis=1) ** 2).sum()) / rows - size) / rows
    return 1.0 if distance <= 0.0 else min(max(noise, 0.0), distance) / distance


def discriminant(domain: Cloud, background: Cloud, amount: float) -> tuple[Array, float]:
    """Return weight [d] and bias of the log odds at equal priors, shrunk by `amount`."""
    covariance = (domain.scatter + background.scatter) / (domain.count + background.count)
    dimensions = len(covariance)
    shrunk = np.asarray((1.0 - amount) * covariance, dtype=np.float64)
    shrunk[np.diag_indices(dimensions)] += amount * np.trace(covariance) / dimensions
    if not np.trace(covariance) > 0.0:
        raise PrototypeError("all examples and the background are one and the same vector.")
    weight = np.linalg.solve(shrunk, domain.mean - background.mean).astype(np.float64)
    return weight, -float(weight @ (domain.mean + background.mean)) / 2.0


def left_out(examples: Array, background: Array, amount: float) -> tuple[Array, Array]:
    """Return the log odds [n] of examples and [m] of background rows that took no part in them."""
    whole = Cloud.of(background)
    ours = np.empty(len(examples))
    for row in range(len(examples)):
        weight, bias = discriminant(Cloud.of(np.delete(examples, row, axis=0)), whole, amount)
        ours[row] = weight @ examples[row] + bias
    domain = Cloud.of(examples)
    theirs = np.empty(len(background))
    for part in range(PARTS):
        # Every eighth row: neighbours in the file may be alike.
        at = np.arange(part, len(background), PARTS)
        rest = Cloud.of(np.delete(background, at, axis=0))
        weight, bias = discriminant(domain, rest, amount)
        theirs[at] = background[at] @ weight + bias
    return ours, theirs


def calibrate(ours: Array, theirs: Array, share: float) -> tuple[float, float]:
    """Return slope and bias that make log odds of the scores, by Platt scaling.

    The examples weigh `share` together, the background the rest. Targets are those of Platt, a
    little inside of 0 and 1, so that separable scores do not make it infinitely sure. Raises
    `PrototypeError` where the scores of the examples are not the higher ones.
    """
    scores = np.concatenate([ours, theirs])
    centre, scale = float(scores.mean()), float(scores.std()) or 1.0
    counts = (len(ours), len(theirs))
    weights = np.repeat((share / counts[0], (1.0 - share) / counts[1]), counts)
    targets = np.repeat(((counts[0] + 1) / (counts[0] + 2), 1 / (counts[1] + 2)), counts)
    slope, bias = _logistic((scores - centre) / scale, targets, weights)
    if not slope > 0.0:
        raise PrototypeError(
            "the examples are no nearer to each other than to everything else: they are of no one "
            "domain that the sentence encoder can see. Give prompts that are more alike, or train "
            "the gate with them."
        )
    return slope / scale, bias - slope * centre / scale


def _logistic(scores: Array, targets: Array, weights: Array) -> tuple[float, float]:
    """Slope and bias of the least weighted cross entropy, by Newton's method with halved steps."""
    columns = np.stack([scores, np.ones_like(scores)], axis=1)

    def loss(at: Array) -> float:
        logits = columns @ at
        return float(weights @ (np.logaddexp(0.0, logits) - targets * logits))

    found = np.array([0.0, 0.0])
    for _ in range(_STEPS):
        shares = 1.0 / (1.0 + np.exp(-np.clip(columns @ found, -500.0, 500.0)))
        gradient = columns.T @ (weights * (shares - targets))
        curve = (columns * (weights * shares * (1.0 - shares))[:, None]).T @ columns
        step = np.linalg.solve(curve + 1e-12 * np.eye(2), gradient)
        length, now = 1.0, loss(found)
        while loss(found - length * step) > now and length > 1e-6:
            length /= 2.0
        found = found - length * step
        if float(np.abs(length * step).max()) < _STILL:
            break
    return float(found[0]), float(found[1])


def _centred(rows: Array) -> Array:
    return np.asarray(rows - rows.mean(axis=0), dtype=np.float64)
