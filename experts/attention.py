"""Attention of rows that are packed behind each other, each over its own run of the arena.

All rows of a step lie in one sequence, prompt chunks beside single decode tokens, so the linear
layers see no padding. The keys and values of the step are written in one go; then each row attends
to its run in place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from experts import attention_kernel, few
from experts.arena import Arena, RowCache

PACKED = "collegium_packed"


@dataclass(frozen=True)
class Segment:
    """The tokens of one row in a packed step: `start:stop` of the sequence.

    `end` is the row's length after the step; `mask` [stop - start, end] is added to the scores, for
    a chunk behind cached tokens.
    """

    cache: RowCache
    start: int
    stop: int
    end: int
    mask: torch.Tensor | None

    @property
    def length(self) -> int:
        """Number of tokens."""
        return self.stop - self.start


@dataclass(frozen=True)
class Rotation:
    """The angles of a step's positions: cos and sin [tokens, d], the sign inside `sin`."""

    cos: torch.Tensor
    sin: torch.Tensor

    @cached_property
    def arrays(self) -> tuple[Any, Any]:
        """The same memory, for a kernel."""
        return self.cos.numpy(), self.sin.numpy()

    def turn(self, heads: torch.Tensor) -> None:
        """Turn [tokens, heads, d] in place (Su et al. 2021, RoPE, arXiv 2104.09864)."""
        # (-second half, first half) · sin.
        crossed = heads.roll(heads.shape[-1] // 2, dims=-1)
        heads.mul_(self.cos[:, None]).addcmul_(crossed, self.sin[:, None])


class _Near:
    """What the compiled kernel needs for a few tokens: `places` [tokens, 3], and room to work."""

    def __init__(self, places: Sequence[tuple[int, int, int]]) -> None:
        self.places = np.array(places, np.int64)
        self._longest = max(length for _, _, length in places)
        self._rooms: dict[int, tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]] = {}

    def room(self, heads: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]:
        """Scores [heads, longest row] and powers [longest row], the same for all layers."""
        if heads not in self._rooms:
            scores = np.empty((heads, self._longest), np.float32)
            self._rooms[heads] = scores, np.empty(self._longest, np.int32)
        return self._rooms[heads]


@dataclass(frozen=True)
class Packing:
    """What all layers of a step share."""

    arena: Arena
    segments: Sequence[Segment]
    positions: torch.Tensor
    slots: torch.Tensor
    near: _Near | None = None

    def turn_and_attend(
        self, layer: int, heads: torch.Tensor, rotation: Rotation, asking: int
    ) -> torch.Tensor:
        """heads [tokens, `asking` query heads, keys, values, d] → [tokens, query heads · d].

        Queries and keys are turned, keys and values stored.
        """
        if self.near is None:
            shared = self.arena.shape.heads
            rotation.turn(heads[:, : asking + shared])
            self.write(layer, heads[:, asking:])
            return self.attend(layer, heads[:, :asking], None).flatten(1)
        tokens, _, width = heads.shape
        out = torch.empty(tokens, asking, width)
        attention_kernel.attend(
            heads.numpy(),
            *rotation.arrays,
            self.arena.arrays[layer],
            self.near.places,
            np.float32(width**-0.5),
            *self.near.room(asking),
            out.numpy(),
        )
        return out.view(tokens, -1)

    def write(self, layer: int, keys_values: torch.Tensor) -> None:
        """Store [tokens, 2 × kv heads, d], keys before values, at the end of each row."""
        self.arena.data[layer].index_copy_(0, self.slots, keys_values)

    def attend(self, layer: int, query: torch.Tensor, scaling: float | None) -> torch.Tensor:
        """query [tokens, heads, d] → [tokens, heads, d]."""
        store = self.arena.data[layer]
        found = [_attend(store, query, segment, scaling) for segment in self.segments]
        return found[0] if len(found) == 1 else torch.cat(found)


def pack(arena: Arena, caches: Sequence[RowCache], lengths: Sequence[int]) -> Packing:
    """Lay the rows behind each other and prepare what all layers share."""
    device, dtype = arena.shape.device, arena.shape.dtype
    segments: list[Segment] = []
    positions: list[int] = []
    slots: list[int] = []
    start = 0
    for cache, length in zip(caches, lengths, strict=True):
        end = cache.length + length
        mask = None
        if length > 1 and cache.length:
            # A chunk behind cached tokens sees all of them and itself causally.
            hidden = torch.ones(length, end, dtype=torch.bool, device=device)
            mask = torch.zeros(length, end, dtype=dtype, device=device).masked_fill_(
                hidden.triu(diagonal=cache.length + 1), float("-inf")
            )
        segments.append(Segment(cache, start, start + length, end, mask))
        positions += range(cache.length, end)
        slots += range(cache.start + cache.length, cache.start + end)
        start += length
    return Packing(
        arena,
        segments,
        torch.tensor(positions, device=device),
        torch.tensor(slots, device=device),
        _near(arena, positions, slots, len(segments)),
    )


def _near(arena: Arena, positions: Sequence[int], slots: Sequence[int], rows: int) -> _Near | None:
    # PyTorch takes a call per row, and reads a row once for all its tokens.
    read = sum(positions) + len(positions)
    if read > few.CONTEXT * rows or not few.suits(arena.data, len(slots)):
        return None
    # A token sees its row up to itself, whose keys and values are stored before any is read.
    places = [(s, s - p, p + 1) for s, p in zip(slots, positions, strict=True)]
    return _Near(places)


def _attend(
    store: torch.Tensor, query: torch.Tensor, segment: Segment, scaling: float | None
) -> torch.Tensor:
    """One row: store [arena tokens, 2 × kv heads, d] → [tokens of the row, heads, d]."""
    # Views made in one call each: at a few rows, dispatch is a good part of a step.
    token, head, _ = store.stride()
    shared, width = store.shape[1] // 2, store.shape[2]
    shape, strides = (1, shared, segment.end, width), (token, head, token, 1)
    first = store.storage_offset() + segment.cache.start * token
    keys = store.as_strided(shape, strides, first)
    values = store.as_strided(shape, strides, first + shared * head)
    rows, heads = query[segment.start : segment.stop], query.shape[1]
    if segment.length == 1:
        # Query heads of one group share keys: as positions of one head they need no copy.
        grouped = rows.view(1, shared, heads // shared, width)
        found = scaled_dot_product_attention(grouped, keys, values, scale=scaling)
        out = found.reshape(1, heads, width)
    else:
        found = scaled_dot_product_attention(
            rows.transpose(0, 1)[None],
            keys,
            values,
            attn_mask=segment.mask,
            is_causal=segment.mask is None,
            scale=scaling,
            enable_gqa=True,
        )
        out = found[0].transpose(0, 1)
    return out


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    packing: Packing | None = None,
    scaling: float | None = None,
    **_kwargs: Any,  # noqa: ANN401
) -> tuple[torch.Tensor, None]:
    """The same inside transformers' models, in the shapes of their attention interface.

    query [1, heads, tokens, d], key and value [1, kv heads, tokens, d] → [1, tokens, heads, d].
    """
    if packing is None:
        raise TypeError("packed attention needs the packing of the step")
    layer: int = module.layer_idx  # type: ignore[assignment]
    packing.write(layer, torch.cat((key[0], value[0])).transpose(0, 1))
    return packing.attend(layer, query[0].transpose(0, 1), scaling)[None], None


ALL_ATTENTION_FUNCTIONS.register(PACKED, packed_attention)
