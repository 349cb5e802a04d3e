"""Weighted low-rank updates of many adapters at once, each row with weights of its own.

    y = W x + B ((g ⊗ 1_r) ⊙ (A x)),   A: [Σr, in], B: [out, Σr], g[row, adapter] = w · α/r

Layers with a common input (q, k and v; gate and up) are one group and share one product with A.
The adapters of a stack lie behind each other along the rank, so one product serves rows of every
gate: a zero gate is the base model, a one-hot gate is one adapter, a soft gate is a weighted blend.
Every row pays for all adapters of its stack. That is little where it only waits for their bytes;
rows of many tokens are a segment by themselves, and rows of too many adapters are cut into several.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch

from experts import few
from experts.adapters import Adapter
from experts.invocation import start_of
from experts.stacks import MAX_STACKED, Bundle, Bundles, Group, Layout

_MANY = 32
"""Tokens of equal adapters from which the arithmetic for others costs more than a segment."""

_KNOWN = 4
"""Compositions that are remembered: drafts, checks and plain steps of one batch take turns."""

Gate = Mapping[str, float]
"""Adapter name → weight; an adapter that is not named has weight 0."""

Update = Callable[[torch.Tensor, torch.Tensor], None]
"""Given x [tokens, in] and y [tokens, Σ width] of a whole step, adds its part to y."""


@dataclass(frozen=True, eq=False)
class _Segment:
    """Tokens `span` of a packed step, whose rows need adapters of this bundle."""

    span: slice
    bundle: Bundle
    table: torch.Tensor
    few: bool
    gates: dict[Layout, torch.Tensor]
    updates: dict[Group, Update]

    def update(self, group: Group) -> Update:
        """What adds this segment's part for one group; made once for all steps that are alike."""
        stack, span = self.bundle.stacks[group], self.span
        if not stack.layout:
            return lambda _x, _y: None
        gate = self.gate(stack.layout)
        if self.few:
            return stack.kernel(gate, span)
        return lambda x, y: stack.add(x[span], y[span], gate)

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
            update = segment.updates.get(group)
            if update is None:
                update = segment.updates[group] = segment.update(group)
            update(x, y)


class AdapterBank:
    """The adapters that are loaded over one base model.

    Args:
        groups: the groups of the model's linear layers.
        like: a tensor with the device and type of the computation.
    """

    def __init__(self, groups: Sequence[Group], like: torch.Tensor) -> None:
        self.like = like
        self._adapters: dict[str, Adapter] = {}
        self._invocations: dict[str, tuple[int, ...]] = {}
        # What is remembered holds its bundles: it goes before one of them is written anew.
        self._known: list[tuple[object, StepGates]] = []
        self._bundles = Bundles(groups, like, let_go=self._known.clear)

    @property
    def names(self) -> list[str]:
        """Names of the loaded adapters."""
        return list(self._adapters)

    def load(self, adapters: Sequence[Adapter]) -> None:
        """Load adapters, replacing those of the same name."""
        for adapter in adapters:
            self.unload(adapter.name)
            self._adapters[adapter.name] = adapter.like(self.like)
            if adapter.invocation:
                self._invocations[adapter.name] = adapter.invocation

    def unload(self, name: str) -> None:
        """Forget an adapter, if it is here."""
        if self._adapters.pop(name, None) is not None:
            self._invocations.pop(name, None)
            self._known.clear()
            self._bundles.forget(name)

    def invocation(self, name: str) -> tuple[int, ...]:
        """The tokens that an adapter waits for; none for one that acts everywhere."""
        return self._invocations.get(name, ())

    def waiting(self, gate: Gate) -> frozenset[str]:
        """The adapters with a weight that wait for their invocation."""
        return active(gate).intersection(self._invocations)

    def starts(self, gate: Gate, prompt: Sequence[int]) -> dict[str, int]:
        """From which position of this prompt each waiting adapter of a gate acts."""
        return {name: start_of(prompt, self._invocations[name]) for name in self.waiting(gate)}

    def step(self, gates: Sequence[Gate], lengths: Sequence[int] | None = None) -> StepGates:
        """The gates of a step: row i covers `lengths[i]` tokens; without lengths, one gate for all.

        Rows of equal adapters should lie side by side; `arrange` gives such an order.
        """
        spans = [0] * len(gates) if lengths is None else list(lengths)
        asked = ([dict(gate) for gate in gates], spans, lengths is None)
        found = next((made for key, made in self._known if key == asked), None)
        if found is None:
            found = self._made(gates, spans, lengths is None)
            self._known.append((asked, found))
            del self._known[:-_KNOWN]
        return found

    def _made(self, gates: Sequence[Gate], spans: Sequence[int], alike: bool) -> StepGates:
        segments: list[_Segment] = []
        for names, rows in _cut(gates, spans):
            start = sum(spans[: rows.start])
            span = slice(start, start + sum(spans[rows]))
            chosen = slice(None) if alike else span
            segments.append(self._segment(names, gates[rows], spans[rows], chosen))
        return StepGates(segments)

    def _segment(
        self, names: frozenset[str], gates: Sequence[Gate], lengths: Sequence[int], span: slice
    ) -> _Segment:
        bundle = self._bundles.of(names, self._adapters)
        table = torch.tensor(
            [[gate.get(name or "", 0.0) for name in bundle.places] for gate in gates],
            dtype=self.like.dtype,
            device=self.like.device,
        )
        if span != slice(None):
            counts = torch.tensor(lengths, device=self.like.device)
            table = table.repeat_interleave(counts, dim=0)
        suits = span != slice(None) and few.suits(self.like, len(table))
        segment = _Segment(span, bundle, table, suits, {}, {})
        bundle.users.add(segment)
        return segment


def active(gate: Gate) -> frozenset[str]:
    """Names of the adapters with a weight."""
    return frozenset(name for name, weight in gate.items() if weight)


def arrange(gates: Sequence[Gate]) -> list[int]:
    """An order of rows in which rows of the same adapters lie side by side, the base first."""
    return sorted(range(len(gates)), key=lambda n: (len(active(gates[n])) > 0, sorted(gates[n])))


def _cut(gates: Sequence[Gate], spans: Sequence[int]) -> Iterator[tuple[frozenset[str], slice]]:
    """The adapters and the rows of each segment; rows of the base alone are in none."""
    names, first, stop, open_ = frozenset[str](), 0, 0, False
    for here, run in groupby(range(len(gates)), key=lambda n: active(gates[n])):
        rows = list(run)
        many = sum(spans[n] for n in rows) >= _MANY
        if many or not (open_ and here) or len(names | here) > MAX_STACKED:
            if names:
                yield names, slice(first, stop)
            names, first = frozenset(), rows[0]
        names, stop, open_ = names | here, rows[-1] + 1, bool(here) and not many
    if names:
        yield names, slice(first, stop)
