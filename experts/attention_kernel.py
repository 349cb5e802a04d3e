"""Attention of single tokens over their rows, compiled by Numba: see `experts.kernels`."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from experts.kernels import (
    AT,
    HALF,
    LEAST,
    LOG2_E,
    ONE,
    ZERO,
    Floats,
    Integers,
    add_scaled,
    compiled,
    power_of_two,
)

_LANES = 8


@compiled
def attend(
    heads: Floats,
    cos: Floats,
    sin: Floats,
    store: Floats,
    places: Integers,
    scale: np.float32,
    scores: Floats,
    powers: npt.NDArray[np.int32],
    out: Floats,
) -> None:
    """One layer's attention of single tokens: turn queries and keys, store, attend.

    Args:
        heads: [tokens, query heads + 2 kv heads, d]: queries, keys, values; turned in place.
        cos, sin: [tokens, d]; the sign of the rotation is in `sin`.
        store: the layer's keys and values [arena tokens, 2 kv heads, d].
        places: [tokens, 3] where a token is stored, where its row begins, its length with it.
        scale: of the scores.
        scores, powers: room for [query heads, longest row] and [longest row].
        out: [tokens, query heads, d].
    """
    for t in range(out.shape[0]):
        _store(heads, cos, sin, store, t, places[t, 0])
    for t in range(out.shape[0]):
        start, length = places[t, 1], places[t, 2]
        _score_row(heads, store, t, start, length, scores)
        for h in range(out.shape[1]):
            _softmax(scores[h, :length], scale, powers)
        _gather_row(scores, store, start, length, out, t)


@compiled
def _store(heads: Floats, cos: Floats, sin: Floats, store: Floats, t: int, place: int) -> None:
    width, kept = heads.shape[2], store.shape[1]
    flat, asking = heads.ravel(), heads.shape[1] - kept
    first = t * heads.shape[1] * width
    for h in range(asking + kept // 2):
        _turn(flat, first + h * width, cos, sin, t)
    target = store[place].ravel()
    for c in range(kept * width):
        target[c] = flat[AT(first + asking * width + c)]


@compiled
def _score_row(
    heads: Floats, store: Floats, t: int, start: int, length: int, scores: Floats
) -> None:
    width, kept = heads.shape[2], store.shape[1]
    asking, row, whole = heads.shape[1] - kept, kept * width, length - length % _LANES
    flat, keys, found, most = heads.ravel(), store.ravel(), scores.ravel(), scores.shape[1]
    # Tokens outside, heads inside: the keys of a token lie together.
    for j in range(0, length, _LANES):
        for h in range(asking):
            key = AT((start + j) * row + h // (asking * 2 // kept) * width)
            query = AT((t * heads.shape[1] + h) * width)
            if j < whole:
                _score(flat, query, keys, key, AT(row), AT(width), found, h * most + j)
            else:
                for n in range(length - whole):
                    place = key + AT(n * row)
                    _score_one(flat, query, keys, place, AT(width), found, h * most + j + n)


@compiled
def _gather_row(
    weights: Floats, store: Floats, start: int, length: int, out: Floats, t: int
) -> None:
    (_, asking, width), kept = out.shape, store.shape[1]
    row, whole = kept * width, length - length % _LANES
    flat, values, found, most = weights.ravel(), store.ravel(), out.ravel(), weights.shape[1]
    for c in range(AT(asking * width)):
        found[AT(t * asking * width) + c] = ZERO
    for j in range(0, length, _LANES):
        for h in range(asking):
            value = AT((start + j) * row + (kept // 2 + h // (asking * 2 // kept)) * width)
            target = AT((t * asking + h) * width)
            if j < whole:
                _sum(flat, h * most + j, values, value, AT(row), AT(width), found, target)
            else:
                for n in range(length - whole):
                    weight, place = flat[h * most + j + n], value + AT(n * row)
                    add_scaled(weight, values, place, AT(width), found, target)


@compiled
def _turn(heads: Floats, first: int, cos: Floats, sin: Floats, t: int) -> None:
    half = cos.shape[1] // 2
    for c in range(half):
        here, there = AT(first + c), AT(first + c + half)
        low, high = heads[here], heads[there]
        heads[here] = low * cos[t, c] + high * sin[t, c]
        heads[there] = high * cos[t, c + half] + low * sin[t, c + half]


@compiled
def _score(
    heads: Floats, q: AT, keys: Floats, k: AT, row: AT, width: AT, scores: Floats, at: int
) -> None:
    k1, k2, k3 = k + row, k + row + row, k + row + row + row
    k4 = k3 + row
    k5, k6, k7 = k4 + row, k4 + row + row, k4 + row + row + row
    s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = ZERO
    for c in range(width):
        x = heads[q + c]
        s0 += x * keys[k + c]
        s1 += x * keys[k1 + c]
        s2 += x * keys[k2 + c]
        s3 += x * keys[k3 + c]
        s4 += x * keys[k4 + c]
        s5 += x * keys[k5 + c]
        s6 += x * keys[k6 + c]
        s7 += x * keys[k7 + c]
    scores[at], scores[at + 1], scores[at + 2], scores[at + 3] = s0, s1, s2, s3
    scores[at + 4], scores[at + 5], scores[at + 6], scores[at + 7] = s4, s5, s6, s7


@compiled
def _score_one(
    heads: Floats, q: AT, keys: Floats, k: AT, width: AT, scores: Floats, at: int
) -> None:
    total = ZERO
    for c in range(width):
        total += heads[q + c] * keys[k + c]
    scores[at] = total


@compiled
def _softmax(scores: Floats, scale: np.float32, powers: npt.NDArray[np.int32]) -> None:
    length = scores.shape[0]
    largest = scores[0]
    for j in range(length):
        largest = max(largest, scores[j])
    # exp(s) = 2^whole · 2^rest: the whole part is written into the exponent's bits.
    for j in range(length):
        power = max((scores[j] - largest) * scale * LOG2_E, LEAST)
        whole = np.floor(power + HALF)
        scores[j] = power_of_two(power - whole)
        powers[j] = (np.int32(whole) + np.int32(127)) << np.int32(23)
    factors = powers.view(np.float32)
    total = ZERO
    for j in range(length):
        scores[j] *= factors[j]
        total += scores[j]
    share = ONE / total
    for j in range(length):
        scores[j] *= share


@compiled
def _sum(
    weights: Floats, at: int, values: Floats, v: AT, row: AT, width: AT, out: Floats, o: AT
) -> None:
    v1, v2, v3 = v + row, v + row + row, v + row + row + row
    v4 = v3 + row
    v5, v6, v7 = v4 + row, v4 + row + row, v4 + row + row + row
    w0, w1, w2, w3 = weights[at], weights[at + 1], weights[at + 2], weights[at + 3]
    w4, w5, w6, w7 = weights[at + 4], weights[at + 5], weights[at + 6], weights[at + 7]
    for c in range(width):
        low = w0 * values[v + c] + w1 * values[v1 + c] + w2 * values[v2 + c] + w3 * values[v3 + c]
        high = w4 * values[v4 + c] + w5 * values[v5 + c] + w6 * values[v6 + c] + w7 * values[v7 + c]
        out[o + c] += low + high
