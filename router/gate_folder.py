"""A gate on disk: JSON with what it is, safetensors with its numbers. Pickles are never read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from router.background import Background
from router.features import FEATURE_VERSION
from router.first import FirstStage
from router.gate_error import GateError
from router.taught import Taught

WEIGHTS_FILE = "gate.safetensors"
METADATA_FILE = "gate.json"
FORMATS = (1, 2, 3)
"""The first knows neither taught experts nor a background, the second no first stage."""

Tensors = Mapping[str, npt.NDArray[Any]]

_TAUGHT = ("taught.weight", "taught.bias", "taught.mean")
_BACKGROUND = ("background.vectors", "background.logits", "background.targets")
_FIRST = ("first.weight", "first.bias")
_FIRST_HEAD = "first_stage"
_HALF = "background.vectors"


def write_gate(folder: Path, head: Mapping[str, Any], tensors: Tensors) -> None:
    """Write both files into the folder, which is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    (folder / WEIGHTS_FILE).write_bytes(save(whole))
    text = json.dumps(head, indent=2, ensure_ascii=False)
    (folder / METADATA_FILE).write_text(text + "\n", encoding="utf-8")


def taught_tensors(taught: Taught | None) -> Tensors:
    """Return the arrays of taught experts by the names that they have on disk."""
    if taught is None:
        return {}
    return dict(zip(_TAUGHT, (taught.weight, taught.bias, taught.mean), strict=True))


def background_tensors(background: Background | None) -> Tensors:
    """Return the arrays of a background by the names that they have on disk."""
    if background is None:
        return {}
    arrays = (background.vectors, background.logits, background.targets)
    return dict(zip(_BACKGROUND, arrays, strict=True))


def first_tensors(first: FirstStage | None) -> Tensors:
    """Return the arrays of a first stage by the names that they have on disk."""
    return {} if first is None else dict(zip(_FIRST, (first.weight, first.bias), strict=True))


def first_head(first: FirstStage | None) -> dict[str, Any]:
    """Return what `gate.json` holds of a first stage."""
    if first is None:
        return {}
    return {_FIRST_HEAD: {"temperature": first.temperature, "threshold": first.threshold}}


def format_of(tensors: Tensors, rows: Sequence[str]) -> int:
    """Return the least format that holds these tensors beside the layer, and these rows."""
    if _FIRST[0] in tensors:
        return 3
    return 2 if tensors or rows else 1


def read_taught(tensors: Tensors, labels: tuple[str, ...]) -> Taught | None:
    """Return the taught experts, whose names are the last of the labels; None without any."""
    if _TAUGHT[0] not in tensors:
        return None
    weight, bias, mean = (tensors[name] for name in _TAUGHT)
    if weight.ndim != 2 or mean.shape != weight.shape or bias.shape != (len(weight),):
        raise GateError(
            f"{WEIGHTS_FILE}: the taught experts' tensors {weight.shape}, {bias.shape} and "
            f"{mean.shape} do not fit together."
        )
    return Taught(labels[len(labels) - len(weight) :], weight, bias, mean)


def read_background(tensors: Tensors) -> Background | None:
    """Return the background; None without one."""
    if _BACKGROUND[0] not in tensors:
        return None
    vectors, logits, targets = (tensors[name] for name in _BACKGROUND)
    if vectors.ndim != 2 or logits.shape != targets.shape or len(vectors) != len(logits):
        raise GateError(
            f"{WEIGHTS_FILE}: the background's tensors {vectors.shape}, {logits.shape} and "
            f"{targets.shape} do not fit together."
        )
    return Background(vectors, logits, targets)


def read_first(tensors: Tensors, head: Mapping[str, Any]) -> FirstStage | None:
    """Return the first stage; None without one."""
    if _FIRST[0] not in tensors:
        return None
    numbers = head.get(_FIRST_HEAD)
    if not isinstance(numbers, Mapping) or not all(
        isinstance(numbers.get(key), int | float) for key in ("temperature", "threshold")
    ):
        raise GateError(f"{METADATA_FILE}: `{_FIRST_HEAD}` must hold temperature and threshold.")
    weight, bias = (tensors[name] for name in _FIRST)
    return FirstStage(weight, bias, numbers["temperature"], numbers["threshold"])


def read_head(folder: Path) -> dict[str, Any]:
    """Read `gate.json`. Raises `GateError` for what is missing, wrong or of another format."""
    path = folder / METADATA_FILE
    if not path.is_file():
        raise GateError(f"{path}: no such file; a gate is a folder with {METADATA_FILE}.")
    try:
        head = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise GateError(f"{path}: not JSON ({error}).") from error
    expected = {"format": int, "version": str, "labels": list, "features": str, "encoder": str}
    kinds: dict[str, type | tuple[type, ...]] = {**expected, "temperature": (int, float)}
    for key, kind in kinds.items():
        if not isinstance(head, dict) or not isinstance(head.get(key), kind):
            raise GateError(f"{path}: `{key}` is missing or of the wrong kind.")
    if not isinstance(head.get("rows", []), list):
        raise GateError(f"{path}: `rows` is of the wrong kind.")
    if head["format"] not in FORMATS:
        known = ", ".join(map(str, FORMATS))
        raise GateError(f"{path}: `format` is {head['format']!r}, this program reads {known}.")
    if head["features"] != FEATURE_VERSION:
        raise GateError(
            f"{path}: `features` is {head['features']!r}, this program reads {FEATURE_VERSION!r}."
        )
    return dict(head)


def read_tensors(folder: Path) -> Tensors:
    """Read `gate.safetensors`. Raises `GateError` for what is missing or no gate's."""
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        raise GateError(f"{path}: no such file; weights are read from safetensors only.")
    try:
        tensors = load(path.read_bytes())
    except SafetensorError as error:
        raise GateError(f"{path}: not a safetensors file ({error}).") from error
    wanted = {"weight", "bias"}
    for group in (_TAUGHT, _BACKGROUND, _FIRST):
        wanted |= set(group) if set(group) & set(tensors) else set()
    if set(tensors) != wanted:
        raise GateError(
            f"{path}: expected the tensors {', '.join(sorted(wanted))}, found {sorted(tensors)}."
        )
    for name, tensor in tensors.items():
        kind = np.float16 if name == _HALF else np.float32
        if tensor.dtype != kind:
            raise GateError(f"{path}: {name} must be {np.dtype(kind).name}.")
        if not np.isfinite(tensor).all():
            raise GateError(f"{path}: {name} must hold finite numbers.")
    return dict(tensors)
