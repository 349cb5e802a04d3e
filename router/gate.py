"""The gate: a logistic layer from features to calibrated label probabilities.

Each label has a logistic unit of its own, and the units share the probability: p is in
proportion to sigmoid(w·x + b) to the power 1 / temperature. The units saturate, so a prompt that
plainly belongs to two experts gives both about a half, which a softmax over the raw scores
gives only where they happen to be equal.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from router.calibration import Matrix, log_sigmoid, softmax
from router.features import FEATURE_VERSION, feature_dimensions
from router.surface import SURFACE_DIMENSIONS

WEIGHTS_FILE = "gate.safetensors"
METADATA_FILE = "gate.json"
FORMAT = 1


class GateError(ValueError):
    """A gate folder that cannot be used; the message names the file and what is wrong with it."""


@dataclass(frozen=True, eq=False)
class Gate:
    """The trained network: `weight` [labels, features], `bias` [labels], and a temperature.

    `encoder` names the sentence encoder that it was trained on; `metadata` is free (training
    data with licences, metrics) and plays no part in the result. Raises `GateError` for arrays
    that do not fit together.
    """

    labels: tuple[str, ...]
    weight: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]
    temperature: float = 1.0
    encoder: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.labels or len(set(self.labels)) != len(self.labels):
            raise GateError(f"labels: must be names that differ; got {self.labels!r}.")
        rows = len(self.labels)
        if self.weight.ndim != 2 or len(self.weight) != rows or self.bias.shape != (rows,):
            raise GateError(
                f"weight {self.weight.shape} and bias {self.bias.shape} do not fit {rows} labels."
            )
        if self.vector_dimensions < 1:
            raise GateError(f"weight: {self.weight.shape[1]} columns are too few for the features.")
        if not (np.isfinite(self.weight).all() and np.isfinite(self.bias).all()):
            raise GateError("weight and bias must be finite numbers.")
        if not (np.isfinite(self.temperature) and self.temperature > 0.0):
            raise GateError(f"temperature: must be above 0; got {self.temperature!r}.")

    @property
    def vector_dimensions(self) -> int:
        """The length of the sentence vectors that the gate was trained on."""
        return int(self.weight.shape[1]) - SURFACE_DIMENSIONS

    @property
    def version(self) -> str:
        """Twelve hex digits that change with anything that changes a probability."""
        digest = hashlib.blake2b(digest_size=6)
        head = [FEATURE_VERSION, self.encoder, float(self.temperature).hex(), *self.labels]
        digest.update("\0".join(head).encode())
        for array in (self.weight, self.bias):
            digest.update(np.ascontiguousarray(array, dtype="<f4").tobytes())
        return digest.hexdigest()

    def scores(self, features: npt.NDArray[np.float32]) -> Matrix:
        """Return the log-sigmoid scores [..., labels] of joined features [..., features]."""
        return log_sigmoid(features @ self.weight.T + self.bias)

    def probabilities(self, features: npt.NDArray[np.float32]) -> Matrix:
        """Return the calibrated probabilities [..., labels] of joined features."""
        return softmax(self.scores(features), self.temperature)

    def save(self, folder: Path) -> None:
        """Write `gate.safetensors` and `gate.json` into the folder, which is made if need be."""
        folder.mkdir(parents=True, exist_ok=True)
        weight, bias = (np.ascontiguousarray(array) for array in (self.weight, self.bias))
        (folder / WEIGHTS_FILE).write_bytes(save({"weight": weight, "bias": bias}))
        head = {
            "format": FORMAT,
            "version": self.version,
            "labels": list(self.labels),
            "features": FEATURE_VERSION,
            "encoder": self.encoder,
            "temperature": self.temperature,
        }
        text = json.dumps(head | dict(self.metadata), indent=2, ensure_ascii=False)
        (folder / METADATA_FILE).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "Gate":
        """Read a gate that `save` wrote.

        Raises `GateError` where a file is missing, is of another kind (pickled weights are never
        read), was made for other features, or does not match its own version.
        """
        head = _head(folder)
        tensors = _tensors(folder)
        gate = cls(
            labels=tuple(head.pop("labels")),
            weight=tensors["weight"],
            bias=tensors["bias"],
            temperature=head.pop("temperature"),
            encoder=head.pop("encoder"),
            metadata={key: head[key] for key in head if key not in ("format", "features")},
        )
        version = head["version"]
        if version != gate.version:
            raise GateError(
                f"{folder / METADATA_FILE}: version {version!r} is not that of {WEIGHTS_FILE} "
                f"({gate.version}); the two files do not belong together."
            )
        return gate


def _head(folder: Path) -> dict[str, Any]:
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
    for key, wanted in (("format", FORMAT), ("features", FEATURE_VERSION)):
        if head[key] != wanted:
            raise GateError(f"{path}: `{key}` is {head[key]!r}, this program reads {wanted!r}.")
    return dict(head)


def _tensors(folder: Path) -> dict[str, npt.NDArray[np.float32]]:
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        raise GateError(f"{path}: no such file; weights are read from safetensors only.")
    try:
        tensors = load(path.read_bytes())
    except SafetensorError as error:
        raise GateError(f"{path}: not a safetensors file ({error}).") from error
    if set(tensors) != {"weight", "bias"}:
        raise GateError(f"{path}: expected the tensors weight and bias, found {sorted(tensors)}.")
    if any(tensor.dtype != np.float32 for tensor in tensors.values()):
        raise GateError(f"{path}: the tensors must be float32.")
    return dict(tensors)


def empty_gate(labels: tuple[str, ...], vector_dimensions: int, encoder: str = "") -> Gate:
    """Return a gate of zeros, to which every label is equally probable."""
    columns = feature_dimensions(vector_dimensions)
    weight = np.zeros((len(labels), columns), dtype=np.float32)
    return Gate(labels, weight, np.zeros(len(labels), dtype=np.float32), encoder=encoder)
