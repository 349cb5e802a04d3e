"""The key-value cache of one row, and attention over rows packed behind each other.

All rows of a step lie in one sequence [1, tokens], prompt chunks beside single decode tokens, so
the linear layers see no padding. Attention is done row by row on the row's own cache. It plugs into
transformers' models through their attention interface.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

PACKED = "collegium_packed"
_FIRST_CAPACITY = 64


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


class RowCache:
    """Keys and values of one row, [layers, 2, heads, capacity, dimension]; capacity doubles."""

    def __init__(self, shape: CacheShape) -> None:
        self._shape = shape
        self._data = self._allocate(_FIRST_CAPACITY)
        self.length = 0

    def reserve(self, tokens: int) -> None:
        """Make room for `tokens` more; amortised, the whole row is copied O(log n) times."""
        needed, capacity = self.length + tokens, self._data.shape[3]
        if needed > capacity:
            grown = self._allocate(max(needed, 2 * capacity))
            grown[:, :, :, : self.length] = self._data[:, :, :, : self.length]
            self._data = grown

    def write(
        self, layer: int, key: torch.Tensor, value: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store [heads, tokens, dimension] behind the row's `length`; returns all keys, values."""
        end = self.length + key.shape[1]
        keys, values = self._data[layer, 0, :, :end], self._data[layer, 1, :, :end]
        keys[:, self.length :] = key
        values[:, self.length :] = value
        return keys, values

    def advance(self, tokens: int) -> None:
        """The step is over: the written tokens belong to the row."""
        self.length += tokens

    def _allocate(self, capacity: int) -> torch.Tensor:
        s = self._shape
        return torch.empty(
            s.layers, 2, s.heads, capacity, s.dimension, dtype=s.dtype, device=s.device
        )


@dataclass(frozen=True)
class Segment:
    """The tokens of one row in a packed step: `start:stop` of the sequence."""

    cache: RowCache
    start: int
    stop: int
    mask: torch.Tensor | None

    @property
    def length(self) -> int:
        """Number of tokens."""
        return self.stop - self.start


def pack(caches: Sequence[RowCache], lengths: Sequence[int]) -> list[Segment]:
    """Lay the rows behind each other and prepare what all layers share."""
    segments, start = [], 0
    for cache, length in zip(caches, lengths, strict=True):
        cache.reserve(length)
        # A chunk behind cached tokens sees all of them and itself causally.
        mask = None
        if length > 1:
            ones = torch.ones(length, cache.length + length, dtype=torch.bool)
            mask = ones.tril(diagonal=cache.length)
        segments.append(Segment(cache, start, start + length, mask))
        start += length
    return segments


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    packed: Sequence[Segment] = (),
    scaling: float | None = None,
    **_kwargs: Any,  # noqa: ANN401
) -> tuple[torch.Tensor, None]:
    """Attention of every row over its own cache; shapes as transformers gives them.

    query [1, heads, tokens, d], key and value [1, kv heads, tokens, d] → [1, tokens, heads, d].
    """
    out = query.new_empty(query.shape[2], query.shape[1], query.shape[3])
    layer: int = module.layer_idx  # type: ignore[assignment]
    for segment in packed:
        span = slice(segment.start, segment.stop)
        keys, values = segment.cache.write(layer, key[0, :, span], value[0, :, span])
        rows = query[:, :, span]
        if segment.mask is None:
            # Query heads of one group share keys: as positions of one head they need no copy.
            grouped = rows.reshape(1, keys.shape[0], -1, rows.shape[3])
            found = scaled_dot_product_attention(grouped, keys[None], values[None], scale=scaling)
            out[segment.start] = found.reshape(rows.shape[1], rows.shape[3])
        else:
            found = scaled_dot_product_attention(
                rows,
                keys[None],
                values[None],
                attn_mask=segment.mask.to(rows.device),
                scale=scaling,
                enable_gqa=True,
            )
            out[span] = found[0].transpose(0, 1)
    return out[None], None


ALL_ATTENTION_FUNCTIONS.register(PACKED, packed_attention)
