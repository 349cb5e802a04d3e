"""Gated low-rank layers inside a transformers model: for any architecture, and for evaluation."""

from __future__ import annotations

import torch
from torch import nn

from experts.lowrank import AdapterBank, StepGates
from experts.stacks import Group


class GateHolder:
    """Where the gated layers of one model find the gates of the step in flight."""

    def __init__(self) -> None:
        self.step = StepGates()


class GatedLinear(nn.Module):
    """A frozen linear layer with the adapters of the step beside it."""

    def __init__(self, base: nn.Linear, group: Group, holder: GateHolder) -> None:
        super().__init__()
        self.base = base
        self._group, self._holder = group, holder

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., tokens, in] → [..., tokens, out] with the gates of the batch in flight."""
        y: torch.Tensor = self.base(x)
        self._holder.step.add(self._group, x.flatten(0, -2), y.flatten(0, -2))
        return y


def gate_layers(model: nn.Module) -> tuple[AdapterBank, GateHolder]:
    """Put a gated layer in place of every linear layer of the decoder; adapters come later."""
    holder = GateHolder()
    groups = []
    for path, layer in decoder_linears(model).items():
        group = Group((path,), (layer.out_features,))
        groups.append(group)
        parent, _, leaf = path.rpartition(".")
        setattr(model.get_submodule(parent), leaf, GatedLinear(layer, group, holder))
    return AdapterBank(groups, next(model.parameters())), holder


def decoder_linears(model: nn.Module) -> dict[str, nn.Linear]:
    """Module path → layer of every linear layer that an adapter may target."""
    # The output head is left alone: it is tied to the embedding and PEFT's all-linear skips it too.
    head = model.get_output_embeddings()  # type: ignore[operator]
    return {
        path: layer
        for path, layer in model.named_modules()
        if isinstance(layer, nn.Linear) and layer is not head
    }
