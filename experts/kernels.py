"""Kernels for a few rows on a CPU, compiled by Numba.

For single tokens PyTorch's attention is a call per row and a low-rank update several per group of
layers, and most of each call is not arithmetic. Here a layer's rows are one call. The kernels run
on the calling thread: a second pool of threads beside PyTorch's would fight it for the cores.
They are written over flat arrays with unsigned indices, which is what compiles to vector code.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]

AT = np.uint64
LOG2_E = np.float32(1.4426950408889634)
TINY = np.float32(1e-12)
ZERO, HALF, ONE = np.float32(0), np.float32(0.5), np.float32(1)
# What a float's exponent can hold.
LEAST, MOST = np.float32(-126), np.float32(126)
_E1, _E2, _E3 = np.float32(0.69314718), np.float32(0.24022651), np.float32(0.05550411)
_E4, _E5, _E6 = np.float32(0.00961813), np.float32(0.00133336), np.float32(0.00015404)


HAVE_NUMBA = importlib.util.find_spec("numba") is not None


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function compiled, and kept on disk for the next start; itself without Numba."""
    if not HAVE_NUMBA:
        return function
    from numba import njit

    # Sums may be taken in any order; infinities keep their meaning.
    compile_ = partial(
        njit, nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz"}
    )
    try:
        found: Callable[..., Any] = compile_(cache=True)(function)
    except RuntimeError:
        # There is no place to write to, as in a read-only container: it is compiled at every start.
        found = compile_()(function)
    return found


@compiled
def low_rank(
    x: Floats,
    a: Floats,
    gate: Floats,
    inner: Floats,
    b: tuple[Floats, ...],
    starts: Integers,
    y: Floats,
) -> None:
    """Add (gate ⊙ (x Aᵀ)) B to y, skipping the ranks that a token does not have (gate 0).

    Args:
        x: [tokens, in]; a: [ranks, in]; gate, inner (written over): [tokens, ranks].
        b: tuple of the modules' B, each [ranks of the module, width].
        starts: [modules, 2] first rank, and first column in y [tokens, out], of each.
    """
    for r in range(a.shape[0]):
        for t in range(x.shape[0]):
            weight = gate[t, r]
            total = ZERO
            if weight != ZERO:
                for c in range(x.shape[1]):
                    total += x[t, c] * a[r, c]
            inner[t, r] = weight * total
    flat = y.ravel()
    for n in range(len(b)):
        ranks, width = b[n].shape
        rows, rank, column = b[n].ravel(), starts[n, 0], starts[n, 1]
        whole = ranks - ranks % 4
        for r in range(0, whole, 4):
            for t in range(y.shape[0]):
                first = AT(t * y.shape[1] + column)
                _add_four(inner, t, rank + r, rows, AT(r * width), AT(width), flat, first)
        for r in range(whole, ranks):
            for t in range(y.shape[0]):
                first = AT(t * y.shape[1] + column)
                add_scaled(inner[t, rank + r], rows, AT(r * width), AT(width), flat, first)


@compiled
def _add_four(
    inner: Floats, t: int, r: int, b: Floats, place: AT, width: AT, y: Floats, first: AT
) -> None:
    w0, w1, w2, w3 = inner[t, r], inner[t, r + 1], inner[t, r + 2], inner[t, r + 3]
    if w0 != ZERO or w1 != ZERO or w2 != ZERO or w3 != ZERO:
        b1, b2, b3 = place + width, place + width + width, place + width + width + width
        for c in range(width):
            y[first + c] += w0 * b[place + c] + w1 * b[b1 + c] + w2 * b[b2 + c] + w3 * b[b3 + c]


@compiled
def add_scaled(weight: np.float32, x: Floats, place: AT, width: AT, y: Floats, first: AT) -> None:
    for c in range(width):
        y[first + c] += weight * x[place + c]


@compiled
def norm(x: Floats, weight: Floats, floor: np.float32, out: Floats) -> None:
    """out = x ⊙ weight / √(‖x‖² + floor), row by row of [tokens, hidden]."""
    for t in range(x.shape[0]):
        total = ZERO
        for c in range(x.shape[1]):
            total += x[t, c] * x[t, c]
        scale = ONE / np.sqrt(total + floor)
        for c in range(x.shape[1]):
            out[t, c] = x[t, c] * weight[c] * scale


@compiled
def add_norm(x: Floats, added: Floats, weight: Floats, floor: np.float32, out: Floats) -> None:
    """`norm` of x + added, which x becomes."""
    for t in range(x.shape[0]):
        for c in range(x.shape[1]):
            x[t, c] += added[t, c]
    norm(x, weight, floor, out)


@compiled
def swish(both: Floats, out: Floats) -> None:
    """out = g σ(g) ⊙ u for both [tokens, 2 × out], g before u (Shazeer 2020, SwiGLU)."""
    width = out.shape[1]
    powers = np.empty(width, np.int32)
    for t in range(out.shape[0]):
        for c in range(width):
            power = min(max(-both[t, c] * LOG2_E, LEAST), MOST)
            whole = np.floor(power + HALF)
            out[t, c] = power_of_two(power - whole)
            powers[c] = (np.int32(whole) + np.int32(127)) << np.int32(23)
        factors = powers.view(np.float32)
        for c in range(width):
            out[t, c] = both[t, c] * both[t, c + width] / (ONE + out[t, c] * factors[c])


@compiled
def power_of_two(f: np.float32) -> np.float32:
    # On [-1/2, 1/2] by its series; the error is 1.2e-7.
    return ONE + f * (_E1 + f * (_E2 + f * (_E3 + f * (_E4 + f * (_E5 + f * _E6)))))


@compiled
def within_one(x: Floats, inverse: Floats, rows: Floats, sizes: Floats) -> None:
    """Each row times `inverse` [in], divided by the largest of it: rows within ±1, sizes [rows, 1].

    Args:
        x: [rows, in].
    """
    count = AT(x.shape[1])
    given, found = x.ravel(), rows.ravel()
    for t in range(x.shape[0]):
        start, size = AT(t) * count, TINY
        for c in range(count):
            value = given[start + c] * inverse[c]
            found[start + c] = value
            size = max(size, abs(value))
        sizes[t, 0] = size
        by = ONE / size
        for c in range(count):
            found[start + c] *= by
