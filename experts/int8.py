"""Linear layers in int8 on a CPU: weights rounded per output channel, activations per row.

Two things make plain dynamic quantisation bad for language models, and are cured here. A few input
channels, and the first token of a text, are hundreds of times larger than the rest: one scale for
all leaves nothing of the others. So every row has a scale of its own (which also keeps it from
depending on the rows beside it), and channels are evened out between activations and weights
before they are rounded, with peaks seen on a short text (SmoothQuant, Xiao et al. 2023, arXiv
2211.10438, alpha 0.5). And CPUs without VNNI add pairs of products in 16 bits, which overflow:
there activations get seven bits.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import cache
from importlib import resources
from typing import Any

import torch

from experts import few, kernels
from experts.gated import decoder_linears

Peaks = Mapping[str, torch.Tensor]
"""Module path → largest absolute activation of each input channel [in]; `HEAD` is the output's."""

HEAD = "head"
_ALPHA = 0.5
_LEAST = 1e-5
_CALIBRATION_TOKENS = 512


def engine() -> str:
    """PyTorch's quantised engine to use; empty where there is none."""
    supported = torch.backends.quantized.supported_engines
    return next((name for name in ("fbgemm", "x86", "onednn") if name in supported), "")


@torch.inference_mode()
def calibrate(model: Any, tokenizer: Any) -> Peaks:  # noqa: ANN401
    """How large the inputs of a model's linear layers become, on a text of many kinds."""
    peaks: dict[str, torch.Tensor] = {}

    def seen(path: str) -> Callable[..., None]:
        def note(_module: Any, inputs: tuple[torch.Tensor, ...], _output: Any) -> None:  # noqa: ANN401
            peaks[path] = inputs[0].abs().flatten(0, -2).amax(dim=0)

        return note

    text = resources.files("experts").joinpath("calibration.txt").read_text(encoding="utf-8")
    ids = tokenizer.encode(text)[: min(_CALIBRATION_TOKENS, model.config.max_position_embeddings)]
    layers = {**decoder_linears(model), HEAD: model.get_output_embeddings()}
    hooks = [layer.register_forward_hook(seen(path)) for path, layer in layers.items()]
    attention = model.config._attn_implementation
    model.set_attn_implementation("sdpa")
    try:
        model(torch.tensor([ids]), use_cache=False)
    finally:
        model.set_attn_implementation(attention)
        for hook in hooks:
            hook.remove()
    return peaks


def project_int8(
    weight: torch.Tensor, bias: torch.Tensor | None, peaks: torch.Tensor | None = None
) -> Callable[[torch.Tensor], torch.Tensor]:
    """x [rows, in] → x Wᵀ + b [rows, out], with weights and rows rounded to eight bits.

    Args:
        weight: [out, in] float32.
        peaks: [in] what `calibrate` saw of the inputs; None evens nothing out.
    """
    torch.backends.quantized.engine = engine()
    scale, zero = _steps()
    evened = _evened(weight, peaks)
    packed = _pack(weight * evened)
    inverse = (1 / evened).contiguous()
    multiply = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32.default

    def project(x: torch.Tensor) -> torch.Tensor:
        rows, sizes = _rows(x, inverse)
        found: torch.Tensor = multiply(rows, scale, zero, packed).mul_(sizes)
        return found if bias is None else found.add_(bias)

    return project


def _rows(x: torch.Tensor, inverse: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows with channels evened out, each within ±1, and what to multiply them with again."""
    if few.suits(x, len(x)):
        rows, sizes = torch.empty(x.shape), torch.empty(len(x), 1)
        kernels.within_one(x.numpy(), inverse.numpy(), rows.numpy(), sizes.numpy())
    else:
        rows = x * inverse
        sizes = rows.abs().amax(dim=1, keepdim=True).clamp_(min=float(kernels.TINY))
        rows.div_(sizes)
    return rows, sizes


def _evened(weight: torch.Tensor, peaks: torch.Tensor | None) -> torch.Tensor:
    """By what each input channel [in] is made smaller, and its weights larger."""
    if peaks is None:
        return torch.ones(weight.shape[1])
    largest = weight.abs().amax(dim=0)
    inputs = peaks.clamp(min=float(peaks.max()) * _LEAST + 1e-12)
    weights = largest.clamp(min=float(largest.max()) * _LEAST + 1e-12)
    found = inputs**_ALPHA / weights ** (1 - _ALPHA)
    return torch.as_tensor(found / found.mean())


def _pack(weight: torch.Tensor) -> Any:  # noqa: ANN401
    scales = weight.abs().amax(dim=1).clamp(min=1e-12) / 127
    zeros = torch.zeros(weight.shape[0], dtype=torch.long)
    with warnings.catch_warnings():
        # PyTorch means to move these kernels out some day; until then they are the quickest here.
        warnings.filterwarnings("ignore", message=".*quantized tensor creation.*")
        quantised = torch.quantize_per_channel(weight, scales, zeros, 0, torch.qint8)
    return torch.ops.quantized.linear_prepack(quantised, None)


@cache
def _steps() -> tuple[float, int]:
    """Scale and zero of activations within ±1: eight bits unless sums of products overflow."""
    ones = torch.ones(1, 64)
    multiply = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32.default
    found = multiply(ones, 1 / 127, 128, _pack(torch.ones(8, 64)))
    return (1 / 127, 128) if torch.allclose(found, torch.tensor(64.0), rtol=0.02) else (1 / 63, 64)
