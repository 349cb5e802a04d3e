"""Weighted low-rank updates of many adapters at once, each row with weights of its own.

    y = W x + B ((g ⊗ 1_r) ⊙ (A x)),   A: [Σr, in], B: [out, Σr], g[row, adapter] = w · α/r

Layers with a common input (q, k and v; gate and up) are one group and share one product with A.
The adapters of a stack lie behind each other along the rank, so one product serves rows of every
gate: a zero gate is the base model, a one-hot gate is one adapter, a soft gate is a weighted blend.
A step stacks the adapters that it needs, or takes a recent stack that has them; rows of more than
`MAX_STACKED` adapters are cut into segments, because the work of a product grows with the adapters.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import linear

from experts.adapters import Adapter

MAX_STACKED = 8
_KEPT_STACKS = 4

Gate = Mapping[str, float]
"""Adapter name → weight; an adapter that is not named has weight 0."""


@dataclass(frozen=True)
class Group:
    """Linear layers that read the same input: module paths and output widths, in output order."""

    modules: tuple[str, ...]
    widths: tuple[int, ...]


Layout = tuple[tuple[int, int, float], ...]
"""(adapter's place in the stack, rank, scale) of every block of rows of A."""


class Stack:
    """The pairs that several adapters have for one group."""

    def __init__(self, adapters: Sequence[Adapter], group: Group, like: torch.Tensor) -> None:
        blocks, layout = [], []
        self._parts: list[tuple[slice, slice, torch.Tensor]] = []
        row = column = 0
        for module, width in zip(group.modules, group.widths, strict=True):
            pairs = [(n, a.weights[module]) for n, a in enumerate(adapters) if module in a.weights]
            if pairs:
                rank = sum(pair.rank for _, pair in pairs)
                b = torch.cat([pair.b.t() for _, pair in pairs])
                self._parts.append((slice(row, row + rank), slice(column, column + width), b))
                blocks += [pair.a for _, pair in pairs]
                layout += [(n, pair.rank, pair.scale) for n, pair in pairs]
                row += rank
            column += width
        self.layout: Layout = tuple(layout)
        self._a = torch.cat(blocks) if blocks else like.new_empty(0, 0)

    def add(self, x: torch.Tensor, y: torch.Tensor, gate: torch.Tensor) -> None:
        """Add to `y` [tokens, Σ width] the update for `x` [tokens, in] under `gate`."""
        inner = linear(x, self._a).mul_(gate)
        for rows, columns, b in self._parts:
            y[:, columns].addmm_(inner[:, rows], b)


@dataclass(frozen=True)
class _Segment:
    """Tokens `span` of a packed step, whose rows need the adapters of these stacks."""

    span: slice
    stacks: Mapping[Group, Stack]
    table: torch.Tensor
    gates: dict[Layout, torch.Tensor]

    def gate(self, layout: Layout) -> torch.Tensor:
        """[tokens, Σ rank], built once per step for all layers of one layout."""
        if layout not in self.gates:
            device, dtype = self.table.device, self.table.dtype
            places = torch.tensor([place for place, _, _ in layout], device=device)
            ranks = torch.tensor([rank for _, rank, _ in layout], device=device)
            scales = torch.tensor([scale for _, _, scale in layout], device=device, dtype=dtype)
            wide = self.table[:, places] * scales
            self.gates[layout] = wide.repeat_interleave(ranks, dim=1)
        return self.gates[layout]


class StepGates:
    """The gates of the step in flight."""

    def __init__(self, segments: Sequence[_Segment] = ()) -> None:
        self._segments = segments

    def add(self, group: Group, x: torch.Tensor, y: torch.Tensor) -> None:
        """Add to `y` [tokens, Σ width] what the adapters of each token's gate give for `x`."""
        for segment in self._segments:
            stack = segment.stacks[group]
            if stack.layout:
                gate = segment.gate(stack.layout)
                stack.add(x[segment.span], y[segment.span], gate)


class AdapterBank:
    """The adapters that are loaded over one base model.

    Args:
        groups: the groups of the model's linear layers.
        like: a tensor with the device and type of the computation.
    """

    def __init__(self, groups: Sequence[Group], like: torch.Tensor) -> None:
        self._groups, self.like = list(groups), like
        self._adapters: dict[str, Adapter] = {}
        self._stacks: OrderedDict[tuple[str, ...], dict[Group, Stack]] = OrderedDict()

    @property
    def names(self) -> list[str]:
        """Names of the loaded adapters."""
        return list(self._adapters)

    def load(self, adapters: Sequence[Adapter]) -> None:
        """Load adapters, replacing those of the same name."""
        for adapter in adapters:
            self.unload(adapter.name)
            self._adapters[adapter.name] = adapter.like(self.like)

    def unload(self, name: str) -> None:
        """Forget an adapter, if it is here."""
        if self._adapters.pop(name, None) is not None:
            self._stacks = OrderedDict((k, s) for k, s in self._stacks.items() if name not in k)

    def step(self, gates: Sequence[Gate], lengths: Sequence[int] | None = None) -> StepGates:
        """The gates of a step: row i covers `lengths[i]` tokens; without lengths, one gate for all.

        Rows of equal adapters should lie side by side; `arrange` gives such an order.
        """
        segments: list[_Segment] = []
        first, start, names = 0, 0, frozenset[str]()
        spans = [0] * len(gates) if lengths is None else list(lengths)
        for row in range(len(gates) + 1):
            here = active(gates[row]) if row < len(gates) else None
            if here is None or len(names | here) > MAX_STACKED or (bool(here) != bool(names)):
                stop = start + sum(spans[first:row])
                if names:
                    chosen = slice(None) if lengths is None else slice(start, stop)
                    segments.append(
                        self._segment(names, gates[first:row], spans[first:row], chosen)
                    )
                first, start, names = row, stop, frozenset()
            names = names | (here or frozenset())
        return StepGates(segments)

    def _segment(
        self, names: frozenset[str], gates: Sequence[Gate], lengths: Sequence[int], span: slice
    ) -> _Segment:
        order, stacks = self._stacked(names)
        table = torch.tensor(
            [[gate.get(name, 0.0) for name in order] for gate in gates],
            dtype=self.like.dtype,
            device=self.like.device,
        )
        if span != slice(None):
            counts = torch.tensor(lengths, device=self.like.device)
            table = table.repeat_interleave(counts, dim=0)
        return _Segment(span, stacks, table, {})

    def _stacked(self, names: frozenset[str]) -> tuple[tuple[str, ...], Mapping[Group, Stack]]:
        # A kept stack that has more than these serves as well: batches change at every step.
        for order in reversed(self._stacks):
            if names <= set(order):
                self._stacks.move_to_end(order)
                return order, self._stacks[order]
        last = set(next(reversed(self._stacks), ()))
        wanted = names | last if len(names | last) <= MAX_STACKED else names
        order = tuple(sorted(wanted))
        adapters = [self._adapters[name] for name in order]
        self._stacks[order] = {g: Stack(adapters, g, self.like) for g in self._groups}
        while len(self._stacks) > _KEPT_STACKS:
            self._stacks.popitem(last=False)
        return order, self._stacks[order]


def active(gate: Gate) -> frozenset[str]:
    """Names of the adapters with a weight."""
    return frozenset(name for name, weight in gate.items() if weight)


def arrange(gates: Sequence[Gate]) -> list[int]:
    """An order of rows in which rows of the same adapters lie side by side, the base first."""
    return sorted(range(len(gates)), key=lambda n: (len(active(gates[n])) > 0, sorted(gates[n])))
