"""Steps of a few tokens on a CPU: whether the compiled kernels serve them."""

from __future__ import annotations

import logging
from functools import cache

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention

from experts import attention_kernel, kernels

logger = logging.getLogger(__name__)

TOKENS = 16
"""Tokens of a step up to which one thread without PyTorch's calls beats two with them."""

CONTEXT = 320
"""Tokens read in attention, by all tokens of a row, up to which it does so there, on average."""


def suits(like: torch.Tensor, tokens: int) -> bool:
    """Whether a step of so many tokens, with tensors like this one, is for the kernels."""
    on_cpu = like.device.type == "cpu" and like.dtype is torch.float32
    return tokens <= TOKENS and on_cpu and works()


@cache
def works() -> bool:
    """Whether the kernels are here and right; the first call compiles what is not on disk yet."""
    if not kernels.HAVE_NUMBA:
        logger.info("Numba is not installed: steps of a few tokens will take longer")
        return False
    found = _low_rank_is_right() and _attention_is_right() and _within_one_is_right()
    if not found:
        logger.warning("the compiled kernels give wrong values here and are not used")
    return found


def _low_rank_is_right() -> bool:
    generator = torch.Generator().manual_seed(0)
    x, a, b = (torch.randn(*s, generator=generator) for s in ((3, 40), (7, 40), (7, 24)))
    gate = torch.tensor([0.0, 1.0, 0.5])[:, None].expand(3, 7).contiguous()
    inner, y = torch.empty(3, 7), torch.zeros(3, 30)
    starts, rows = np.array([[0, 6]]), (b.numpy(),)
    kernels.low_rank(x.numpy(), a.numpy(), gate.numpy(), inner.numpy(), rows, starts, y.numpy())
    return torch.allclose(y[:, 6:], (x @ a.T * gate) @ b, atol=1e-4) and not y[:, :6].any()


def _attention_is_right() -> bool:
    tokens, asking, shared, width, length = 2, 4, 2, 16, 21
    generator = torch.Generator().manual_seed(0)
    heads = torch.randn(tokens, asking + 2 * shared, width, generator=generator)
    store = torch.randn(64, 2 * shared, width, generator=generator)
    places = np.array([[length - 1, 0, length], [32 + length - 1, 32, length]])
    out, still = torch.empty(tokens, asking, width), torch.ones(tokens, width)
    attention_kernel.attend(
        heads.numpy(),
        still.numpy(),
        torch.zeros_like(still).numpy(),
        store.numpy(),
        places,
        np.float32(width**-0.5),
        np.empty((asking, length), np.float32),
        np.empty(length, np.int32),
        out.numpy(),
    )
    rows = [store[:length], store[32 : 32 + length]]
    keys, values = (
        torch.stack([row[:, part].transpose(0, 1) for row in rows])
        for part in (slice(0, shared), slice(shared, 2 * shared))
    )
    query = heads[:, :asking, None]
    wanted = scaled_dot_product_attention(query, keys, values, enable_gqa=True)[:, :, 0]
    return torch.allclose(out, wanted, atol=1e-4)


def _within_one_is_right() -> bool:
    x, by = torch.randn(3, 40, generator=torch.Generator().manual_seed(0)), torch.arange(1.0, 41.0)
    rows, sizes = torch.empty(3, 40), torch.empty(3, 1)
    kernels.within_one(x.numpy(), by.numpy(), rows.numpy(), sizes.numpy())
    return torch.allclose(rows * sizes, x * by, atol=1e-4) and bool((rows.abs() <= 1.0001).all())
