"""The key-value memory of one engine: fixed blocks, reserved in runs, with exact prefix reuse.

One tensor holds the keys and values of all rows. A row gets a run of neighbouring blocks for its
longest possible length when it is let in, so attention reads it in place, nothing is ever copied
while it grows, and a row that was let in can finish. What is reserved and not written costs address
space only. A finished row's run stays as a cache, by the tokens and the gate that made it, until
the memory is needed; a new row with the same beginning copies that once instead of computing it.
Where adapters wait for their invocation, what the base made before them is found under the base.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch

BLOCK = 16

BASE: Hashable = ()
"""The gate of keys and values that the base alone made."""


@dataclass(frozen=True)
class CacheShape:
    """What one token costs in the cache."""

    layers: int
    heads: int
    dimension: int
    dtype: torch.dtype
    device: torch.device

    @property
    def bytes_per_token(self) -> int:
        """Bytes of keys and values of all layers."""
        return 2 * self.layers * self.heads * self.dimension * self.dtype.itemsize


@dataclass(eq=False)
class RowCache:
    """The run of blocks of one row: tokens `start : start + length` of the arena are written."""

    start: int
    capacity: int
    length: int = 0

    def advance(self, tokens: int) -> None:
        """The step is over: the written tokens belong to the row."""
        self.length += tokens

    def rewind(self, length: int) -> None:
        """Forget the tokens behind `length`; they will be written again."""
        self.length = min(self.length, length)


@dataclass(eq=False)
class _Kept:
    """A prefix in the cache: whose tokens lie in the run, and under which keys it is found.

    The base alone made the first `shared` tokens, `gate` the others.
    """

    row: RowCache
    gate: Hashable
    tokens: tuple[int, ...]
    shared: int
    keys: set[int] = field(default_factory=set)

    def begins(self, gate: Hashable, tokens: Sequence[int], shared: int) -> bool:
        """Whether it truly starts with these tokens under this gate: a key is only a hash."""
        alike = self.gate == gate or len(tokens) <= min(self.shared, shared)
        return alike and self.tokens[: len(tokens)] == tuple(tokens)


class Arena:
    """Memory for `tokens` tokens, in blocks of `BLOCK`. Not thread-safe: the engine owns it."""

    def __init__(self, shape: CacheShape, tokens: int) -> None:
        self.capacity = tokens // BLOCK * BLOCK
        self.shape = shape
        # Token-major, keys beside values: one write per layer, and a prefix is one piece.
        self.data = torch.empty(
            shape.layers,
            self.capacity,
            2 * shape.heads,
            shape.dimension,
            dtype=shape.dtype,
            device=shape.device,
        )
        self.reused_tokens = 0
        self._held = 0
        self._free: list[tuple[int, int]] = [(0, self.capacity)]
        self._kept: OrderedDict[int, _Kept] = OrderedDict()
        self._found_by: dict[int, tuple[_Kept, int]] = {}

    @cached_property
    def arrays(self) -> list[Any]:
        """Each layer's keys and values as an array over the same memory, on a CPU."""
        return [layer.numpy() for layer in self.data]

    @property
    def free_tokens(self) -> int:
        """Tokens of memory that no row holds, cached prefixes counted as free.

        A plain number: other threads ask for it while the engine's changes the lists.
        """
        return self.capacity - self._held

    def fits(self, tokens: int, rows: int) -> bool:
        """Whether so much memory is free; it may still lie in pieces."""
        return whole_blocks(tokens) * rows <= self.free_tokens

    @property
    def cached_tokens(self) -> int:
        """Tokens of finished rows that may be reused."""
        return sum(len(kept.tokens) for kept in self._kept.values())

    def reserve(self, tokens: int) -> RowCache | None:
        """A run for a row of at most `tokens` tokens; None while no run is long enough."""
        size = whole_blocks(tokens)
        found = self._fit(size)
        while found is None and self._kept:
            self._forget(next(iter(self._kept.values())))
            found = self._fit(size)
        self._held += size if found is not None else 0
        return found

    def release(
        self, row: RowCache, gate: Hashable, tokens: Sequence[int], shared: int = 0
    ) -> None:
        """A row is over: its whole blocks stay as a cache, the rest is free.

        Args:
            gate: equal for rows whose keys and values are equal functions of the tokens.
            tokens: those of the row; what is behind `row.length` is not looked at.
            shared: tokens at the beginning that the base alone made.
        """
        self._held -= row.capacity
        whole = row.length // BLOCK * BLOCK
        if row.capacity > whole:
            self._give_back(row.start + whole, row.capacity - whole)
            row.capacity = whole
        if whole:
            shared = whole if gate == BASE else min(shared, whole)
            maker = BASE if shared == whole else gate
            kept = _Kept(row, maker, tuple(tokens[:whole]), shared)
            self._kept[id(kept)] = kept
            for count, key in enumerate(_keys(gate, kept.tokens, shared), start=1):
                self._disown(key)
                self._found_by[key] = (kept, count * BLOCK)
                kept.keys.add(key)

    def reuse(self, row: RowCache, gate: Hashable, tokens: Sequence[int], shared: int = 0) -> int:
        """Fill an empty row with the longest cached beginning of `tokens`; returns its length.

        At least the last token is left to compute: its logits are wanted.
        """
        shared = len(tokens) if gate == BASE else shared
        path: list[tuple[_Kept, int]] = []
        for key in _keys(gate, tokens[: len(tokens) - 1], shared):
            found = self._found_by.get(key)
            if found is None or not found[0].begins(gate, tokens[: found[1]], shared):
                break
            path.append(found)
        if not path:
            return 0
        kept, length = path[-1]
        self.copy(kept.row, row, length)
        # The beginning last, so that it outlives what is found only through it.
        for owner, _ in reversed(path):
            self._kept.move_to_end(id(owner))
        return length

    def copy(self, source: RowCache, row: RowCache, length: int) -> None:
        """Let a row have the first `length` tokens of another, behind those that it has."""
        here, there, first = row.start, source.start, row.length
        written = self.data[:, there + first : there + length]
        self.data[:, here + first : here + length] = written
        row.length = length
        self.reused_tokens += length - first

    def clear(self, made_by: Callable[[Any], bool] = lambda _gate: True) -> None:
        """Forget what these gates made: an adapter has changed. What the base made stays."""
        for kept in [kept for kept in self._kept.values() if made_by(kept.gate)]:
            self._shorten(kept, 0 if made_by(BASE) else kept.shared // BLOCK * BLOCK)

    def _fit(self, size: int) -> RowCache | None:
        for index, (start, length) in enumerate(self._free):
            if length >= size:
                if length == size:
                    del self._free[index]
                else:
                    self._free[index] = (start + size, length - size)
                return RowCache(start, size)
        return None

    def _disown(self, key: int) -> None:
        # The newest run owns a beginning that several share; one that owns nothing goes at once.
        owner, _ = self._found_by.pop(key, (None, 0))
        if owner is not None:
            owner.keys.remove(key)
            if not owner.keys:
                self._forget(owner)

    def _shorten(self, kept: _Kept, length: int) -> None:
        for key in [key for key in kept.keys if self._found_by[key][1] > length]:
            del self._found_by[key]
            kept.keys.remove(key)
        if kept.keys:
            self._give_back(kept.row.start + length, kept.row.capacity - length)
            kept.row.capacity = kept.shared = length
            kept.tokens, kept.gate = kept.tokens[:length], BASE
        else:
            self._forget(kept)

    def _forget(self, kept: _Kept) -> None:
        del self._kept[id(kept)]
        for key in kept.keys:
            del self._found_by[key]
        self._give_back(kept.row.start, kept.row.capacity)

    def _give_back(self, start: int, size: int) -> None:
        self._free.append((start, size))
        self._free.sort()
        merged: list[tuple[int, int]] = []
        for here, length in self._free:
            if merged and sum(merged[-1]) == here:
                merged[-1] = (merged[-1][0], merged[-1][1] + length)
            else:
                merged.append((here, length))
        self._free = merged


def whole_blocks(tokens: int) -> int:
    """Tokens of the blocks that hold so many."""
    return -(-tokens // BLOCK) * BLOCK


def _keys(gate: Hashable, tokens: Sequence[int], shared: int) -> list[int]:
    """A hash for each whole block's end, each over everything before it and who made it."""
    keys, last = [], 0
    for start in range(0, len(tokens) - BLOCK + 1, BLOCK):
        maker = BASE if start + BLOCK <= shared else gate
        last = hash((maker, last, *tokens[start : start + BLOCK]))
        keys.append(last)
    return keys
