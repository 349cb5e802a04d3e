"""The device that a model computes on, by name."""

from __future__ import annotations

import torch


class DeviceError(ValueError):
    """There is no such device here; the message says what there is."""


def choose_device(name: str) -> torch.device:
    """The device of this name (`cpu`, `cuda`, `cuda:1`, …); `auto` takes CUDA when there is one.

    Raises:
        DeviceError: the name is no device of torch, or there is no such device on this machine.
    """
    auto = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(auto if name == "auto" else name)
    except RuntimeError as error:
        raise DeviceError(f"{name!r} is no device; use auto, cpu, cuda, cuda:1, …") from error
    count = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= count:
        raise DeviceError(f"{name!r} is not here: this machine has {count} CUDA devices")
    return device
