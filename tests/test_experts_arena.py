"""The key-value memory: runs never overlap, nothing leaks, and a reused prefix is the right one."""

from __future__ import annotations

import random

import pytest
import torch

from experts.arena import BLOCK, Arena, CacheShape, RowCache

SHAPE = CacheShape(layers=2, heads=1, dimension=4, dtype=torch.float32, device=torch.device("cpu"))


def written(arena: Arena, row: RowCache, gate: str, tokens: list[int]) -> None:
    """Write what the model would: here a value that only this gate, token and place have."""
    for place in range(row.length, len(tokens)):
        value = float(hash((gate, tuple(tokens[: place + 1]))) % 1_000_003)
        arena.data[:, row.start + place] = value
    row.length = len(tokens)


def right(arena: Arena, row: RowCache, gate: str, tokens: list[int]) -> bool:
    expected = [
        float(hash((gate, tuple(tokens[: place + 1]))) % 1_000_003) for place in range(row.length)
    ]
    found = arena.data[:, row.start : row.start + row.length]
    truth = torch.tensor(expected)[None, :, None, None].expand_as(found)
    return bool((found == truth).all())


def test_a_run_is_in_whole_blocks_and_comes_back() -> None:
    arena = Arena(SHAPE, 10 * BLOCK + 3)
    assert arena.capacity == arena.free_tokens == 10 * BLOCK
    row = arena.reserve(BLOCK + 1)
    assert row is not None and row.capacity == 2 * BLOCK
    assert arena.free_tokens == 8 * BLOCK
    arena.release(row, "g", [])
    assert arena.free_tokens == 10 * BLOCK


def test_a_full_arena_gives_nothing_until_a_row_is_over() -> None:
    arena = Arena(SHAPE, 4 * BLOCK)
    first, second = arena.reserve(3 * BLOCK), arena.reserve(BLOCK)
    assert first is not None and second is not None
    assert arena.reserve(1) is None
    arena.release(second, "g", [])
    assert arena.reserve(1) is not None


def test_cached_prefixes_make_room_the_oldest_first() -> None:
    arena = Arena(SHAPE, 4 * BLOCK)
    prompts = [[n] * (2 * BLOCK) for n in range(2)]
    for tokens in prompts:
        row = arena.reserve(2 * BLOCK)
        assert row is not None
        written(arena, row, "g", tokens)
        arena.release(row, "g", tokens)
    assert arena.cached_tokens == 4 * BLOCK
    new = arena.reserve(2 * BLOCK)
    assert new is not None
    assert arena.reuse(new, "g", [*prompts[0], 9]) == 0
    arena.release(new, "g", [])
    again = arena.reserve(BLOCK)
    assert again is not None
    assert arena.reuse(again, "g", prompts[1][:BLOCK] + [9]) == BLOCK


def test_a_prefix_of_another_gate_or_another_text_is_not_reused() -> None:
    arena = Arena(SHAPE, 40 * BLOCK)
    tokens = list(range(3 * BLOCK))
    row = arena.reserve(len(tokens))
    assert row is not None
    written(arena, row, "red", tokens)
    arena.release(row, "red", tokens)
    for gate, asked, expected in [
        ("blue", tokens, 0),
        ("red", [1, *tokens[1:]], 0),
        ("red", [*tokens[: BLOCK + 3], 7, 7, 7], BLOCK),
        ("red", tokens, 2 * BLOCK),
        ("red", [*tokens, 5], 3 * BLOCK),
    ]:
        other = arena.reserve(len(asked))
        assert other is not None
        assert arena.reuse(other, gate, asked) == other.length == expected
        assert right(arena, other, gate, asked)


def test_equal_hashes_do_not_make_prefixes_equal() -> None:
    assert hash(-1) == hash(-2)
    arena = Arena(SHAPE, 40 * BLOCK)
    row = arena.reserve(BLOCK)
    assert row is not None
    row.length = BLOCK
    arena.release(row, ("g", -1), [-1] * BLOCK)
    for gate, token, expected in [(-2, -1, 0), (-1, -2, 0), (-1, -1, BLOCK)]:
        other = arena.reserve(BLOCK + 1)
        assert other is not None
        assert arena.reuse(other, ("g", gate), [token] * (BLOCK + 1)) == expected


def test_a_longer_text_takes_over_its_beginning() -> None:
    arena = Arena(SHAPE, 9 * BLOCK)
    story = list(range(4 * BLOCK))
    for blocks in (2, 4):
        row = arena.reserve(blocks * BLOCK)
        assert row is not None
        arena.reuse(row, "g", story[: blocks * BLOCK])
        written(arena, row, "g", story[: blocks * BLOCK])
        arena.release(row, "g", story[: blocks * BLOCK])
    assert arena.cached_tokens == 4 * BLOCK
    last = arena.reserve(3 * BLOCK)
    assert last is not None
    assert arena.reuse(last, "g", [*story[: 2 * BLOCK], 999]) == 2 * BLOCK
    assert right(arena, last, "g", story[: 2 * BLOCK])


def test_a_beginning_outlives_what_is_found_through_it() -> None:
    arena = Arena(SHAPE, 12 * BLOCK)
    system = [7] * (2 * BLOCK)
    for mark in (1, 2):
        tokens = system + [mark] * BLOCK
        row = arena.reserve(len(tokens))
        assert row is not None
        arena.reuse(row, "g", tokens)
        written(arena, row, "g", tokens)
        arena.release(row, "g", tokens)
    again = arena.reserve(4 * BLOCK)
    assert again is not None
    assert arena.reuse(again, "g", [*system, *[1] * BLOCK, 5]) == 3 * BLOCK
    assert arena.reserve(3 * BLOCK) is not None
    arena.release(again, "h", [])
    small = arena.reserve(3 * BLOCK)
    assert small is not None
    assert arena.reuse(small, "g", [*system, 3]) == 2 * BLOCK


def test_what_never_fits_together_is_told_before_anything_is_evicted() -> None:
    arena = Arena(SHAPE, 6 * BLOCK)
    first = arena.reserve(2 * BLOCK)
    held = arena.reserve(2 * BLOCK)
    assert first is not None and held is not None
    written(arena, first, "g", [1] * (2 * BLOCK))
    arena.release(first, "g", [1] * (2 * BLOCK))
    assert arena.fits(2 * BLOCK, 2) and arena.fits(BLOCK - 3, 4)
    assert not arena.fits(2 * BLOCK + 1, 2) and not arena.fits(1, 5)


def test_clearing_forgets_every_prefix() -> None:
    arena = Arena(SHAPE, 8 * BLOCK)
    row = arena.reserve(BLOCK)
    assert row is not None
    written(arena, row, "g", [3] * BLOCK)
    arena.release(row, "g", [3] * BLOCK)
    arena.clear()
    assert arena.cached_tokens == 0 and arena.free_tokens == 8 * BLOCK
    other = arena.reserve(2 * BLOCK)
    assert other is not None and arena.reuse(other, "g", [3] * (BLOCK + 1)) == 0


@pytest.mark.parametrize("seed", range(8))
def test_random_use_never_mixes_rows_and_loses_no_memory(seed: int) -> None:
    rng = random.Random(seed)
    arena = Arena(SHAPE, 60 * BLOCK)
    open_rows: list[tuple[RowCache, str, list[int]]] = []
    for _ in range(400):
        if open_rows and rng.random() < 0.5:
            row, gate, tokens = open_rows.pop(rng.randrange(len(open_rows)))
            assert right(arena, row, gate, tokens)
            if rng.random() < 0.2:
                row.rewind(rng.randrange(row.length + 1))
            arena.release(row, gate, tokens)
        else:
            gate = rng.choice("ab")
            tokens = [rng.randrange(2)] * rng.randrange(1, 60) + [rng.randrange(9) for _ in "xyz"]
            row = arena.reserve(len(tokens) + rng.randrange(30))
            if row is not None:
                arena.reuse(row, gate, tokens)
                assert right(arena, row, gate, tokens)
                written(arena, row, gate, tokens)
                open_rows.append((row, gate, tokens))
        spans = sorted((r.start, r.start + r.capacity) for r, _, _ in open_rows)
        assert all(a[1] <= b[0] for a, b in zip(spans, spans[1:], strict=False))
        held = sum(r.capacity for r, _, _ in open_rows)
        assert arena.free_tokens + held == arena.capacity
    assert arena.reused_tokens > 500
