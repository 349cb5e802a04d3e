"""Adapters' low-rank pairs laid behind each other, so that one product serves several adapters.

Every adapter is a stack by itself. A few stacks of several are kept; where the batch wants others,
an adapter takes the place of one that is not wanted, which copies that one adapter only.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import linear

from experts import kernels
from experts.adapters import Adapter

MAX_STACKED = 8
"""Adapters of a stack: the work of a product grows with them."""

_KEPT = 4
_GROWN = 4
"""Adapters up to which a stack keeps those of the step before, for batches that come again."""
_SPARE = 2
"""Adapters that a stack may hold besides the wanted: each costs a step its own bytes."""

Layout = tuple[tuple[int, int, float], ...]
"""(adapter's place in the stack, rank, scale) of every block of rows of A."""


@dataclass(frozen=True)
class Group:
    """Linear layers that read the same input: module paths and output widths, in output order."""

    modules: tuple[str, ...]
    widths: tuple[int, ...]


@dataclass(frozen=True)
class _Block:
    """One adapter's pair of one module: its place, and its rows of the stack's A and B."""

    place: int
    module: str
    a: torch.Tensor
    b: torch.Tensor


class Stack:
    """The pairs that several adapters have for one group: A [Σr, in], and B [Σr, out] by module."""

    def __init__(self, adapters: Sequence[Adapter], group: Group, like: torch.Tensor) -> None:
        self._parts: list[tuple[slice, slice, torch.Tensor]] = []
        self._blocks: list[_Block] = []
        pairs = [
            (
                module,
                [(n, a.weights[module]) for n, a in enumerate(adapters) if module in a.weights],
            )
            for module in group.modules
        ]
        every = [pair for _, some in pairs for _, pair in some]
        self.layout: Layout = tuple((n, p.rank, p.scale) for _, some in pairs for n, p in some)
        # A single adapter's tensors serve as they are; those of several are written anew later.
        alone = len(adapters) == 1
        self._a = _joined([p.a for p in every], alone) if every else like.new_empty(0, 0)
        row = column = 0
        for (module, some), width in zip(pairs, group.widths, strict=True):
            if some:
                b, first = _joined([p.b.t() for _, p in some], alone), row
                for place, pair in some:
                    rows = slice(row, row + pair.rank)
                    inner = b[row - first : row - first + pair.rank]
                    self._blocks.append(_Block(place, module, self._a[rows], inner))
                    row += pair.rank
                self._parts.append((slice(first, row), slice(column, column + width), b))
            column += width

    def put(self, adapter: Adapter, place: int) -> None:
        """Write an adapter of the same ranks over the one at `place`."""
        layout = list(self.layout)
        for number, block in enumerate(self._blocks):
            if block.place == place:
                pair = adapter.weights[block.module]
                block.a.copy_(pair.a)
                block.b.copy_(pair.b.t())
                layout[number] = (place, pair.rank, pair.scale)
        self.layout = tuple(layout)

    def add(self, x: torch.Tensor, y: torch.Tensor, gate: torch.Tensor) -> None:
        """Add to `y` [tokens, Σ width] the update for `x` [tokens, in] under `gate`."""
        inner = linear(x, self._a).mul_(gate)
        for rows, columns, b in self._parts:
            y[:, columns].addmm_(inner[:, rows], b)

    def kernel(
        self, gate: torch.Tensor, span: slice
    ) -> Callable[[torch.Tensor, torch.Tensor], None]:
        """`add` for a few tokens, those of `span`, on a CPU: x and y are those of a whole step."""
        a, weights, inner = self._a.numpy(), gate.numpy(), np.empty(gate.shape, np.float32)
        b = tuple(part.numpy() for _, _, part in self._parts)
        starts = np.array([(rows.start, columns.start) for rows, columns, _ in self._parts])

        def add(x: torch.Tensor, y: torch.Tensor) -> None:
            kernels.low_rank(x.numpy()[span], a, weights, inner, b, starts, y.numpy()[span])

        return add


class Bundle:
    """The stacks of the same adapters, one for each group. `users` are the steps that hold it."""

    def __init__(
        self, adapters: Sequence[Adapter], groups: Sequence[Group], like: torch.Tensor
    ) -> None:
        self.places: list[str | None] = [adapter.name for adapter in adapters]
        self.stacks = {group: Stack(adapters, group, like) for group in groups}
        self.users: weakref.WeakSet[object] = weakref.WeakSet()
        self._ranks = [_ranks(adapter) for adapter in adapters]

    @property
    def names(self) -> frozenset[str]:
        """The adapters in it."""
        return frozenset(name for name in self.places if name is not None)

    def vacate(self, name: str) -> None:
        """This adapter is no longer what lies here under its name."""
        self.places = [None if here == name else here for here in self.places]

    def refill(self, adapters: Mapping[str, Adapter]) -> bool:
        """Take these adapters in, in place of others; False, and nothing done, if they do not fit.

        Steps in flight read a bundle between their layers: one with users is never changed.
        """
        free = sorted(
            (n for n, name in enumerate(self.places) if name not in adapters),
            key=lambda n: self.places[n] is not None,
        )
        moves: dict[str, int] = {}
        for name in adapters.keys() - self.names:
            ranks = _ranks(adapters[name])
            place = next((n for n in free if self._ranks[n] == ranks), None)
            if place is not None:
                free.remove(place)
                moves[name] = place
        fits = adapters.keys() <= self.names | moves.keys() and not self.users
        for name, place in moves.items() if fits else ():
            self.places[place] = name
            for stack in self.stacks.values():
                stack.put(adapters[name], place)
        return fits


class Bundles:
    """The bundles of one bank: each adapter's own, and a few of several.

    Args:
        groups: of the model's linear layers.
        like: a tensor with the device and type of the computation.
        let_go: called before a bundle is written anew; drops those that hold it without need.
    """

    def __init__(
        self, groups: Sequence[Group], like: torch.Tensor, let_go: Callable[[], None]
    ) -> None:
        self._groups, self._like, self._let_go = list(groups), like, let_go
        self._own: dict[str, Bundle] = {}
        self._kept: list[Bundle] = []

    def forget(self, name: str) -> None:
        """The adapter is gone, or another will come under its name."""
        self._own.pop(name, None)
        for bundle in self._kept:
            bundle.vacate(name)

    def of(self, names: frozenset[str], loaded: Mapping[str, Adapter]) -> Bundle:
        """A bundle that has these adapters, at most `MAX_STACKED`."""
        if len(names) == 1:
            (name,) = names
            if name not in self._own:
                self._own[name] = self._made({name}, loaded)
            found = self._own[name]
        else:
            found = (
                self._kept_with(names)
                or self._grown(names, loaded)
                or self._refilled(names, loaded)
                or self._made(names, loaded)
            )
            self._kept = [bundle for bundle in self._kept if bundle is not found] + [found]
            del self._kept[:-_KEPT]
        return found

    def _kept_with(self, names: frozenset[str]) -> Bundle | None:
        having = [bundle for bundle in self._near(names) if names <= bundle.names]
        return min(having, key=lambda bundle: len(bundle.places), default=None)

    def _grown(self, names: frozenset[str], loaded: Mapping[str, Adapter]) -> Bundle | None:
        last = self._kept[-1].names if self._kept else frozenset()
        return self._made(names | last, loaded) if len(names | last) <= _GROWN else None

    def _refilled(self, names: frozenset[str], loaded: Mapping[str, Adapter]) -> Bundle | None:
        self._let_go()
        wanted = {name: loaded[name] for name in names}
        near = sorted(self._near(names), key=lambda bundle: -len(names & bundle.names))
        return next((bundle for bundle in near if bundle.refill(wanted)), None)

    def _near(self, names: frozenset[str]) -> Iterator[Bundle]:
        least, most = len(names), len(names) + _SPARE
        return (bundle for bundle in self._kept if least <= len(bundle.places) <= most)

    def _made(self, names: frozenset[str] | set[str], loaded: Mapping[str, Adapter]) -> Bundle:
        return Bundle([loaded[name] for name in sorted(names)], self._groups, self._like)


def _ranks(adapter: Adapter) -> Mapping[str, int]:
    return {module: pair.rank for module, pair in adapter.weights.items()}


def _joined(parts: Sequence[torch.Tensor], alone: bool) -> torch.Tensor:
    return parts[0] if alone and len(parts) == 1 else torch.cat(list(parts))
