"""Linear layers for a few rows: kernels with weights packed once, plain products otherwise.

Decoding multiplies a handful of rows with every weight. A plain product packs the weights anew in
each call and is then slower at 8 rows than 8 times at one. A product with packed weights costs
about the same for 1 to 8 rows: MKL's on Intel's CPUs, oneDNN's on others, where MKL takes as long
for four rows as for four single ones. int8 (see `experts.int8`) reads a quarter of the bytes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from enum import StrEnum
from functools import cache
from pathlib import Path

import torch
from torch.nn.functional import linear

from experts.int8 import engine, project_int8

Projection = Callable[[torch.Tensor], torch.Tensor]
"""[rows, in] → [rows, out]."""

logger = logging.getLogger(__name__)

_PACKED_FOR = 64
_CHECKED_ROWS = (1, 2, 3, 7, 16, 33, 64, 100)


class Kernel(StrEnum):
    """How the base model's linear layers are computed."""

    PLAIN = "plain"
    MKL = "mkl"
    ONEDNN = "onednn"
    INT8 = "int8"


def project_with(
    kernel: Kernel,
    weights: Sequence[torch.Tensor],
    biases: Sequence[torch.Tensor | None],
    peaks: torch.Tensor | None = None,
) -> Projection:
    """One projection whose output is that of these layers behind each other.

    Args:
        weights: each [out, in], one input for all.
        peaks: [in] how large the input becomes, for int8.
    """
    weight = torch.cat(list(weights)) if len(weights) > 1 else weights[0]
    bias = _joined(weights, biases)
    if kernel is Kernel.INT8:
        found = project_int8(weight, bias, peaks)
    elif kernel is Kernel.MKL:
        found = _mkl(weight, bias)
    elif kernel is Kernel.ONEDNN:
        found = _onednn(weight, bias)
    else:
        found = _plain(weight, bias)
    return found


def kernel_for(device: torch.device, dtype: torch.dtype, *, int8: bool) -> Kernel:
    """The best kernel that this machine has and that gives the right values here.

    Raises:
        ValueError: int8 is asked for where it does not exist.
    """
    on_cpu = device.type == "cpu"
    if int8 and not (on_cpu and dtype is torch.float32 and engine()):
        raise ValueError("int8 needs a CPU with fbgemm or oneDNN, and dtype float32 beside it")
    if int8:
        kernel = Kernel.INT8
    elif on_cpu and dtype is torch.float32:
        kernel = _packing()
    else:
        kernel = Kernel.PLAIN
    return kernel


def _plain(weight: torch.Tensor, bias: torch.Tensor | None) -> Projection:
    return lambda x: linear(x, weight, bias)


def _mkl(weight: torch.Tensor, bias: torch.Tensor | None) -> Projection:
    packed = torch.ops.mkl._mkl_reorder_linear_weight(weight, _PACKED_FOR)
    # The operator reads only the shape of the original, which therefore need not be kept.
    shape = weight.new_zeros(1).expand(weight.shape)
    multiply = torch.ops.mkl._mkl_linear.default

    def project(x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = multiply(x, packed, shape, bias, x.shape[0])
        return found

    return project


def _onednn(weight: torch.Tensor, bias: torch.Tensor | None) -> Projection:
    packed = torch.ops.mkldnn._reorder_linear_weight(weight, _PACKED_FOR)
    multiply = torch.ops.mkldnn._linear_pointwise.default

    def project(x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = multiply(x, packed, bias, "none", [], "")
        return found

    return project


@cache
def _packing() -> Kernel:
    # By the maker, not by the clock: replicas that chose differently would not agree in the last
    # bits, and a seed would not give the same text on each of them.
    order = (Kernel.MKL, Kernel.ONEDNN) if _by_intel() else (Kernel.ONEDNN, Kernel.MKL)
    return next((kernel for kernel in order if _works(kernel)), Kernel.PLAIN)


def _by_intel() -> bool:
    try:
        return "GenuineIntel" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False


def _works(kernel: Kernel) -> bool:
    # Both document packed weights for one number of rows and take them for any; a build that does
    # not must be found out here, not by a user.
    if kernel is Kernel.MKL:
        there = torch.backends.mkl.is_available()  # type: ignore[no-untyped-call]
        there = there and hasattr(torch.ops.mkl, "_mkl_linear")
    else:
        there = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        there = there and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
    if not there:
        return False
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(96, 80, generator=generator)
    bias = torch.randn(96, generator=generator)
    rows = [torch.randn(n, 80, generator=generator) for n in _CHECKED_ROWS]
    try:
        project = project_with(kernel, [weight], [bias])
        return all(torch.allclose(project(x), linear(x, weight, bias), atol=1e-3) for x in rows)
    except RuntimeError as error:
        logger.warning("%s's packed product cannot be used here: %s", kernel, error)
        return False


def _joined(
    weights: Sequence[torch.Tensor], biases: Sequence[torch.Tensor | None]
) -> torch.Tensor | None:
    if all(bias is None for bias in biases):
        return None
    return torch.cat(
        [w.new_zeros(w.shape[0]) if b is None else b for w, b in zip(weights, biases, strict=True)]
    )
