"""The compiled kernels against PyTorch, and an engine without them against one with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import linear, scaled_dot_product_attention, silu

from experts import attention_kernel, few, kernels
from experts.runner import Runner, Work

pytestmark = pytest.mark.skipif(not kernels.HAVE_NUMBA, reason="Numba is not installed")


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("ranks", [(16, 16, 16), (1, 3, 6), (5,)])
@pytest.mark.parametrize("tokens", [1, 3, 16])
def test_low_rank_is_the_gated_product(tokens: int, ranks: tuple[int, ...]) -> None:
    widths = (24, 8, 40)[: len(ranks)]
    x, a = torch.randn(tokens, 33), torch.randn(sum(ranks), 33)
    gate = torch.rand(tokens, sum(ranks)) * (torch.rand(tokens, sum(ranks)) < 0.5)
    b = [torch.randn(rank, width) for rank, width in zip(ranks, widths, strict=True)]
    y = torch.randn(tokens, sum(widths))
    inner = linear(x, a) * gate
    updates = [part @ m for part, m in zip(inner.split(ranks, dim=1), b, strict=True)]
    wanted = y + torch.cat(updates, dim=1)
    starts = np.array([(sum(ranks[:n]), sum(widths[:n])) for n in range(len(ranks))])
    room = np.full((tokens, sum(ranks)), np.nan, np.float32)
    parts = tuple(part.numpy() for part in b)
    kernels.low_rank(x.numpy(), a.numpy(), gate.numpy(), room, parts, starts, y.numpy())
    torch.testing.assert_close(y, wanted, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("lengths", [(1,), (7, 8, 9), (1, 40, 333), (64, 65, 66, 67)])
@pytest.mark.parametrize(("asking", "shared", "width"), [(9, 3, 64), (4, 4, 32), (6, 1, 8)])
@pytest.mark.parametrize("apart", [True, False], ids=["rows", "one row"])
def test_attention_turns_stores_and_attends(
    lengths: tuple[int, ...], asking: int, shared: int, width: int, apart: bool
) -> None:
    tokens = len(lengths)
    heads = torch.randn(tokens, asking + 2 * shared, width)
    store = torch.randn(1500, 2 * shared, width)
    cos, sin = torch.rand(tokens, width), torch.rand(tokens, width)
    # Several tokens of one row: each sees those before it.
    begins = [10 + 340 * n if apart else 10 for n in range(tokens)]
    places = [(b + n - 1, b, n) for b, n in zip(begins, lengths, strict=True)]
    turned = heads[:, : asking + shared]
    turned = turned * cos[:, None] + turned.roll(width // 2, -1) * sin[:, None]
    after = store.clone()
    for t, (place, _, _) in enumerate(places):
        after[place] = torch.cat([turned[t, asking:], heads[t, asking + shared :]])
    wanted = []
    for t, (_, begin, length) in enumerate(places):
        row = after[begin : begin + length].transpose(0, 1)[None]
        query = turned[t, :asking][None, :, None]
        wanted.append(
            scaled_dot_product_attention(query, row[:, :shared], row[:, shared:], enable_gqa=True)
        )
    out = torch.empty(tokens, asking, width)
    attention_kernel.attend(
        heads.numpy(),
        cos.numpy(),
        sin.numpy(),
        store.numpy(),
        np.array(places),
        np.float32(width**-0.5),
        np.empty((asking, max(lengths)), np.float32),
        np.empty(max(lengths), np.int32),
        out.numpy(),
    )
    torch.testing.assert_close(store, after)
    torch.testing.assert_close(out, torch.cat(wanted)[:, :, 0], atol=2e-6, rtol=1e-5)


def test_attention_to_far_apart_scores_is_finite() -> None:
    heads = torch.zeros(1, 3, 8)
    heads[0, 0] = 1000.0
    store = torch.zeros(4, 2, 8)
    store[1, 0], store[1, 1] = 1000.0, 3.0
    out, still = torch.empty(1, 1, 8), torch.ones(1, 8)
    attention_kernel.attend(
        heads.numpy(),
        still.numpy(),
        torch.zeros(1, 8).numpy(),
        store.numpy(),
        np.array([(3, 0, 4)]),
        np.float32(1),
        np.empty((1, 4), np.float32),
        np.empty(4, np.int32),
        out.numpy(),
    )
    torch.testing.assert_close(out, torch.full((1, 1, 8), 3.0))


def test_norm_and_swish_are_those_of_the_model() -> None:
    x, added, weight, out = torch.randn(5, 576), torch.randn(5, 576), torch.rand(576), None
    out = torch.empty(5, 576)
    size, epsilon = 576, 1e-5
    scaled = (weight * size**0.5).numpy()
    wanted = torch.nn.functional.rms_norm(x + added, (size,), weight, epsilon)
    kernels.add_norm(x.numpy(), added.numpy(), scaled, np.float32(size * epsilon), out.numpy())
    torch.testing.assert_close(out, wanted, atol=1e-5, rtol=1e-5)
    both = torch.randn(4, 2000) * 30
    found = torch.empty(4, 1000)
    kernels.swish(both.numpy(), found.numpy())
    gate, up = both.chunk(2, dim=-1)
    torch.testing.assert_close(found, silu(gate) * up, atol=1e-5, rtol=1e-5)


@pytest.mark.models
def test_a_model_gives_the_same_with_and_without_kernels(
    tiny_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def logits() -> torch.Tensor:
        runner = Runner(tiny_dir, device="cpu", threads=1, cache_tokens=1024)
        rows = [runner.arena.reserve(64) for _ in range(3)]
        works = [
            Work(row, {}, list(range(9, 9 + n)), range(n))
            for row, n in zip(rows, (1, 5, 9), strict=True)
            if row is not None
        ]
        first = torch.cat(runner.run(works))
        more = [Work(work.cache, {}, [77], [0]) for work in works]
        return torch.cat([first, *runner.run(more)])

    assert few.works()
    found = logits()
    monkeypatch.setattr(few, "works", lambda: False)
    torch.testing.assert_close(found, logits(), atol=2e-4, rtol=1e-4)
