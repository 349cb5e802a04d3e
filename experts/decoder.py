"""The decoder of Llama's family with fused projections: fewer, larger operations per layer.

It computes what the modules of transformers compute for the same weights (Llama, Mistral without a
sliding window, Qwen2), with q, k and v in one product, gate and up in another, and the adapters'
updates beside them. The weights are taken over: the transformers model is empty afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.functional import silu

from experts import few, kernels
from experts.attention import Packing, Rotation
from experts.int8 import Peaks
from experts.lowrank import StepGates
from experts.projection import Kernel, Projection, project_with
from experts.stacks import Group

_FAMILY = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM")


@dataclass(frozen=True)
class _Fused:
    project: Projection
    group: Group

    def __call__(self, x: torch.Tensor, gates: StepGates) -> torch.Tensor:
        y = self.project(x)
        gates.add(self.group, x, y)
        return y


class _Norm:
    """Root mean square norm (Zhang and Sennrich 2019, arXiv 1910.07467), in four operations.

    x w / √(mean(x²) + ε) = x (w √n) / √(‖x‖² + n ε)
    """

    def __init__(self, weight: torch.Tensor, epsilon: float) -> None:
        size = weight.shape[0]
        self._weight = weight.float() * math.sqrt(size)
        self._floor = torch.tensor(math.sqrt(size * epsilon), device=weight.device)
        self._square = np.float32(size * epsilon)

    def __call__(
        self, x: torch.Tensor, added: torch.Tensor | None = None, *, small: bool
    ) -> torch.Tensor:
        """The norm of `x`, to which `added` is added first, in place; `small` as in `few`."""
        if small:
            out = torch.empty_like(x)
            weight, found = self._weight.numpy(), out.numpy()
            if added is None:
                kernels.norm(x.numpy(), weight, self._square, found)
            else:
                kernels.add_norm(x.numpy(), added.numpy(), weight, self._square, found)
        else:
            out = self._plain(x if added is None else x.add_(added))
        return out

    def _plain(self, x: torch.Tensor) -> torch.Tensor:
        # In float32 whatever the model's type: sums of squares of half floats overflow.
        wide = x.float()
        length = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
        return (wide * self._weight).div_(torch.hypot(length, self._floor)).to(x.dtype)


@dataclass(frozen=True)
class _Layer:
    qkv: _Fused
    out: _Fused
    gate_up: _Fused
    down: _Fused
    attention_norm: _Norm
    mlp_norm: _Norm


class FusedDecoder:
    """Embedding, layers and final norm of one model; see `fits`.

    Args:
        peaks: how large the layers' inputs become, for int8.
    """

    def __init__(self, model: Any, kernel: Kernel, peaks: Peaks) -> None:  # noqa: ANN401
        decoder, config = model.get_decoder(), model.config
        self._heads = config.num_attention_heads
        self._width = getattr(config, "head_dim", None) or config.hidden_size // self._heads
        self._embed = decoder.embed_tokens
        self._rotary = decoder.rotary_emb
        self._norm = _Norm(decoder.norm.weight, config.rms_norm_eps)
        half = torch.ones(self._width // 2, device=self._embed.weight.device)
        self._sign = torch.cat((-half, half)).to(self._embed.weight.dtype)
        self._layers = []
        for number, layer in enumerate(decoder.layers):
            path = f"model.layers.{number}"
            self._layers.append(_fuse(layer, path, kernel, peaks, config.rms_norm_eps))
            # Packed weights are a copy: the original goes at once, layer by layer.
            decoder.layers[number] = torch.nn.Identity()

    @property
    def groups(self) -> list[Group]:
        """The groups of linear layers that adapters may target."""
        return [
            fused.group
            for layer in self._layers
            for fused in (layer.qkv, layer.out, layer.gate_up, layer.down)
        ]

    def stages(
        self, ids: torch.Tensor, packing: Packing, gates: StepGates
    ) -> Iterator[torch.Tensor]:
        """ids [tokens] → hidden states [tokens, hidden] behind each layer, at last normed."""
        x = self._embed(ids)
        cos, sin = self._rotary(x, packing.positions[None])
        rotation = Rotation(cos[0], sin[0] * self._sign)
        small = few.suits(x, len(ids))
        update: torch.Tensor | None = None
        for number, layer in enumerate(self._layers):
            normed = layer.attention_norm(x, update, small=small)
            heads = layer.qkv(normed, gates).view(len(ids), -1, self._width)
            found = packing.turn_and_attend(number, heads, rotation, self._heads)
            normed = layer.mlp_norm(x, layer.out(found, gates), small=small)
            update = layer.down(_swish(layer.gate_up(normed, gates), small=small), gates)
            yield x
        yield self._norm(x, update, small=small)


def _swish(both: torch.Tensor, *, small: bool) -> torch.Tensor:
    gate, up = both.chunk(2, dim=-1)
    if small:
        out = torch.empty(gate.shape)
        kernels.swish(both.numpy(), out.numpy())
    else:
        out = silu(gate).mul_(up)
    return out


def fits(model: Any) -> bool:  # noqa: ANN401
    """Whether the model is of the family that `FusedDecoder` computes exactly."""
    config = model.config
    return (
        type(model).__name__ in _FAMILY
        and config.hidden_act == "silu"
        and not getattr(config, "use_sliding_window", False)
        and (config.model_type != "mistral" or config.sliding_window is None)
    )


def _fuse(
    layer: Any,  # noqa: ANN401
    path: str,
    kernel: Kernel,
    peaks: Peaks,
    epsilon: float,
) -> _Layer:
    attention, mlp = layer.self_attn, layer.mlp

    def fused(parent: str, module: Any, *names: str) -> _Fused:  # noqa: ANN401
        linears = [getattr(module, name) for name in names]
        paths = tuple(f"{path}.{parent}.{name}" for name in names)
        weights, biases = [m.weight for m in linears], [m.bias for m in linears]
        project = project_with(kernel, weights, biases, peaks.get(paths[0]))
        return _Fused(project, Group(paths, tuple(m.out_features for m in linears)))

    return _Layer(
        qkv=fused("self_attn", attention, "q_proj", "k_proj", "v_proj"),
        out=fused("self_attn", attention, "o_proj"),
        gate_up=fused("mlp", mlp, "gate_proj", "up_proj"),
        down=fused("mlp", mlp, "down_proj"),
        attention_norm=_Norm(layer.input_layernorm.weight, epsilon),
        mlp_norm=_Norm(layer.post_attention_layernorm.weight, epsilon),
    )
