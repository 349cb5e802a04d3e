"""The gated low-rank layer: many adapters over one base, each row with weights of its own.

    y = W x + B ((g ⊗ 1_r) ⊙ (A x)),   A: [Σr, in], B: [out, Σr], g[row, slot] = w · α/r

The adapters of a module are stacked along the rank, so one product serves rows of every gate: a
zero gate is the base model, a one-hot gate is one adapter, a soft gate is a weighted blend.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from experts.adapters import Adapter

Gate = Mapping[str, float]
"""Adapter name → weight; an adapter that is not named has weight 0."""


class Gates:
    """The gates of the batch in flight, shared by all gated layers of one model."""

    def __init__(self) -> None:
        self._slots: list[str] = []
        self._rows: torch.Tensor | None = None
        self._wide: dict[tuple[tuple[int, float], ...], torch.Tensor] = {}

    def name_slots(self, slots: Sequence[str]) -> None:
        """Give the order of the slots, as stacked in the layers."""
        self._slots = list(slots)
        self.clear()

    def set(self, gates: Sequence[Gate], lengths: Sequence[int], like: torch.Tensor) -> None:
        """Set the gate of each segment of a packed batch: segment i covers `lengths[i]` tokens."""
        self._wide.clear()
        table = [[gate.get(slot, 0.0) for slot in self._slots] for gate in gates]
        if any(value for row in table for value in row):
            rows = torch.tensor(table, dtype=like.dtype, device=like.device)
            counts = torch.tensor(lengths, device=like.device)
            self._rows = rows.repeat_interleave(counts, dim=0)
        else:
            self._rows = None

    def clear(self) -> None:
        """Back to the base model."""
        self._rows = None
        self._wide.clear()

    def wide(self, layout: tuple[tuple[int, float], ...]) -> torch.Tensor | None:
        """[tokens, Σ rank] for a layer whose slots have these (rank, scale); None if all zero."""
        if self._rows is not None and layout not in self._wide:
            device = self._rows.device
            ranks = torch.tensor([rank for rank, _ in layout], device=device)
            scales = torch.tensor([s for _, s in layout], dtype=self._rows.dtype, device=device)
            self._wide[layout] = (self._rows * scales).repeat_interleave(ranks, dim=1)
        return self._wide.get(layout)


class GatedLinear(nn.Module):
    """A frozen linear layer with the stacked adapters of all slots beside it."""

    def __init__(self, base: nn.Linear, gates: Gates) -> None:
        super().__init__()
        self.base = base
        self._gates = gates
        self._layout: tuple[tuple[int, float], ...] = ()
        self.a: torch.Tensor | None = None
        self.b: torch.Tensor | None = None

    def stack(self, adapters: Sequence[Adapter], module: str) -> None:
        """Take over the pairs that these adapters have for this module, in slot order."""
        weight = self.base.weight
        pairs = [adapter.weights.get(module) for adapter in adapters]
        self._layout = tuple((p.rank, p.scale) if p else (0, 0.0) for p in pairs)
        present = [p for p in pairs if p]
        self.a = torch.cat([p.a.to(weight) for p in present]) if present else None
        self.b = torch.cat([p.b.to(weight) for p in present], dim=1) if present else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., tokens, in] → [..., tokens, out] with the gates of the batch in flight."""
        y: torch.Tensor = self.base(x)
        if self.a is not None and self.b is not None:
            gate = self._gates.wide(self._layout)
            if gate is not None:
                y = y + nn.functional.linear(nn.functional.linear(x, self.a) * gate, self.b)
        return y


class AdapterBank:
    """The adapters of one model: which are loaded, in which slot."""

    def __init__(self, model: nn.Module) -> None:
        self.gates = Gates()
        self._adapters: dict[str, Adapter] = {}
        self._layers: dict[str, GatedLinear] = {}
        for path, layer in _decoder_linears(model).items():
            gated = GatedLinear(layer, self.gates)
            parent, _, leaf = path.rpartition(".")
            setattr(model.get_submodule(parent), leaf, gated)
            self._layers[path] = gated

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        """Module path → (in_features, out_features) of every layer that an adapter may target."""
        return {p: (m.base.in_features, m.base.out_features) for p, m in self._layers.items()}

    @property
    def names(self) -> list[str]:
        """Names of the loaded adapters, in slot order."""
        return list(self._adapters)

    def load(self, adapters: Sequence[Adapter]) -> None:
        """Load adapters, replacing those of the same name."""
        self._adapters |= {adapter.name: adapter for adapter in adapters}
        self._restack()

    def unload(self, name: str) -> None:
        """Drop one adapter; its gate is zero from now on."""
        del self._adapters[name]
        self._restack()

    def _restack(self) -> None:
        loaded = list(self._adapters.values())
        for path, layer in self._layers.items():
            layer.stack(loaded, path)
        self.gates.name_slots(self.names)


def _decoder_linears(model: nn.Module) -> dict[str, nn.Linear]:
    # The output head is left alone: it is tied to the embedding and PEFT's all-linear skips it too.
    head = model.get_output_embeddings()  # type: ignore[operator]
    return {
        path: layer
        for path, layer in model.named_modules()
        if isinstance(layer, nn.Linear) and layer is not head
    }
