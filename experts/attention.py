"""Attention of rows that are packed behind each other, each over its own run of the arena.

All rows of a step lie in one sequence, prompt chunks beside single decode tokens, so the linear
layers see no padding. The keys and values of the step are written in one go; then each row attends
to its run in place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from experts.arena import Arena, RowCache

PACKED = "collegium_packed"


@dataclass(frozen=True)
class Segment:
    """The tokens of one row in a packed step: `start:stop` of the sequence.

    `end` is the row's length after the step; `mask` [stop - start, end] is added to the scores and
    None where every key is seen.
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
class Packing:
    """What all layers of a step share."""

    arena: Arena
    segments: Sequence[Segment]
    positions: torch.Tensor
    slots: torch.Tensor

    def write(self, layer: int, keys_values: torch.Tensor) -> None:
        """Store [tokens, 2 × kv heads, d], keys before values, at the end of each row."""
        self.arena.data[layer].index_copy_(0, self.slots, keys_values)

    def attend(self, layer: int, query: torch.Tensor, scaling: float | None) -> torch.Tensor:
        """query [tokens, heads, d] → [tokens, heads, d]."""
        out = torch.empty_like(query)
        store, heads = self.arena.data[layer], self.arena.shape.heads
        for segment in self.segments:
            first = segment.cache.start
            run = store[first : first + segment.end].transpose(0, 1)[None]
            keys, values = run[:, :heads], run[:, heads:]
            rows = query[segment.start : segment.stop]
            out[segment.start : segment.stop] = _attend(rows, keys, values, segment.mask, scaling)
        return out


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
        if length > 1:
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
    )


def _attend(
    rows: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float | None,
) -> torch.Tensor:
    # rows [n, heads, d]; keys and values [1, kv heads, end, d]
    count, heads, width = rows.shape
    shared = keys.shape[1]
    if count == 1:
        # Query heads of one group share keys: as positions of one head they need no copy.
        grouped = rows.view(1, shared, heads // shared, width)
        found = scaled_dot_product_attention(grouped, keys, values, scale=scaling)
        out = found.view(1, heads, width)
    else:
        found = scaled_dot_product_attention(
            rows.transpose(0, 1)[None],
            keys,
            values,
            attn_mask=mask,
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
