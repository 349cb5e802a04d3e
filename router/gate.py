"""The gate: a logistic layer from features to calibrated label probabilities.

Each label has a logistic unit of its own, and the units share the probability: p is in
proportion to sigmoid(w·x + b) to the power 1 / temperature. The units saturate, so a prompt that
plainly belongs to two experts gives both about a half, which a softmax over the raw scores
gives only where they happen to be equal.

Experts may be taught to it afterwards (`taught.py`), and labels forgotten: the unit of a trained
label then counts for another one. A first stage (`first.py`) may settle what needs no sentence
vector.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from router.background import Background
from router.calibration import Matrix, log_sigmoid, softmax
from router.features import FEATURE_VERSION
from router.first import FirstStage
from router.gate_check import check_gate
from router.gate_error import GateError
from router.gate_folder import (
    METADATA_FILE,
    WEIGHTS_FILE,
    background_tensors,
    first_head,
    first_tensors,
    format_of,
    read_background,
    read_first,
    read_head,
    read_taught,
    read_tensors,
    taught_tensors,
    write_gate,
)
from router.layer import Layer
from router.parts import columns, strongest
from router.prototypes import Prototype, fit_prototype
from router.surface import SURFACE_DIMENSIONS
from router.taught import Taught, join_prototype

__all__ = ["METADATA_FILE", "WEIGHTS_FILE", "Gate", "GateError"]

_HEAD = ("format", "version", "features", "rows", "first_stage")


@dataclass(frozen=True, eq=False)
class Gate:
    """The trained network: `weight` [units, features], `bias` [units], and a temperature.

    `labels` are those of the units, then the `taught`. `rows` names the label of each unit where
    several count for one. `encoder` names the sentence encoder that it was trained on; `first` is
    its first stage, of the same units. `background` is what new experts are held against,
    `metadata` is free (training data with licences, metrics), and neither plays a part in the
    result. Raises `GateError` for arrays that do not fit together.
    """

    labels: tuple[str, ...]
    weight: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]
    temperature: float = 1.0
    encoder: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    rows: tuple[str, ...] = ()
    taught: Taught | None = None
    background: Background | None = None
    first: FirstStage | None = None

    def __post_init__(self) -> None:
        check_gate(self)

    @property
    def vector_dimensions(self) -> int:
        """The length of the sentence vectors that the gate was trained on."""
        return int(self.weight.shape[1]) - SURFACE_DIMENSIONS

    @property
    def units(self) -> tuple[str, ...]:
        """The label for which each unit of the layer counts."""
        later = len(self.taught.names) if self.taught else 0
        return self.rows or self.labels[: len(self.labels) - later]

    @property
    def version(self) -> str:
        """Twelve hex digits that change with anything that changes a probability."""
        digest = hashlib.blake2b(digest_size=6)
        head = [FEATURE_VERSION, self.encoder, float(self.temperature).hex(), *self.labels]
        digest.update("\0".join(head).encode())
        for array in (self.weight, self.bias):
            digest.update(np.ascontiguousarray(array, dtype="<f4").tobytes())
        if self.rows:
            digest.update("\0".join(("rows", *self.rows)).encode())
        for content in self.taught.content() if self.taught else ():
            digest.update(content)
        for content in self.first.content() if self.first else ():
            digest.update(content)
        return digest.hexdigest()

    def scores(self, features: npt.NDArray[np.float32]) -> Matrix:
        """Return each label's own log-sigmoid score [..., labels] of joined features.

        Where several units count for a label, it is that of the surest.
        """
        found = log_sigmoid(self._logits(features))
        if self.rows:
            owned = [found[..., self._owners[:, at] > 0] for at in range(self._owners.shape[1])]
            found = np.stack([scores.max(axis=-1) for scores in owned], axis=-1)
        if self.taught is None:
            return found
        taught = self.taught.logits(features[..., : self.vector_dimensions])
        return np.concatenate([found, log_sigmoid(taught)], axis=-1)

    def probabilities(self, features: npt.NDArray[np.float32]) -> Matrix:
        """Return the calibrated probabilities [..., labels] of joined features."""
        scores = log_sigmoid(self._logits(features))
        return self._shared(scores, self._odds(features[..., : self.vector_dimensions]))

    def judge(
        self,
        features: npt.NDArray[np.float32],
        starts: Sequence[int] | npt.NDArray[np.int64],
        generalist: str,
    ) -> Matrix:
        """Return the calibrated probabilities [n, labels] of texts given by their parts.

        Text i has the rows of `features` [m, features] from `starts[i]` to the next start. The
        parts are judged together as `router.parts` says.
        """
        scores = log_sigmoid(self._logits(features))
        odds = self._odds(features[:, : self.vector_dimensions])
        if odds is not None:
            odds = np.maximum.reduceat(odds, starts, axis=0)
        return self._shared(strongest(scores, starts, columns(self.units, generalist)), odds)

    def settle(self, surface: npt.NDArray[np.float32]) -> npt.NDArray[np.float64] | None:
        """Return the probabilities [labels] of a text that its surface [s] alone decides.

        None where the gate must be asked: a first stage is missing or not sure, or there are taught
        experts, which are known by sentence vectors only.
        """
        if self.first is None or self.taught is not None:
            return None
        found = self.first.settle(surface)
        return found @ self._owners if found is not None and self.rows else found

    def known_background(self) -> Background:
        """Return the background. Raises `GateError` where there is none."""
        if self.background is None:
            raise GateError(
                "this gate holds no background to compare with: it was trained before gates had "
                "one. Train it anew with `collegium train router`, which writes it."
            )
        return self.background

    def background_probabilities(self) -> Matrix:
        """Return the probabilities [rows, labels] of the background. Raises `GateError`."""
        known = self.known_background()
        return self._shared(log_sigmoid(known.logits), self._odds(known.vectors))

    def background_targets(self) -> Matrix:
        """Return the label shares [rows, labels] of the background. Raises `GateError`."""
        targets = self.known_background().targets.astype(np.float64)
        later = len(self.labels) - self._owners.shape[1]
        return np.pad(targets @ self._owners, ((0, 0), (0, later)))

    def prototype(self, features: npt.NDArray[np.float32], share: float | None = None) -> Prototype:
        """Return a prototype of joined features [examples, features], as `with_prototype` takes it.

        The expert is taken to be asked for in a `share` of the traffic, above 0 and below 1; unless
        given, as often as any that the gate was trained for. Raises `PrototypeError` for examples
        that none can be made of, `GateError` for a gate without a background.
        """
        dimensions = self.vector_dimensions
        if features.ndim != 2 or features.shape[1] != self.weight.shape[1]:
            raise GateError(
                f"features {features.shape}: joined rows of {self.weight.shape[1]} are asked."
            )
        examples = features[:, :dimensions].astype(np.float64)
        background = self.known_background().vectors.astype(np.float64)
        return fit_prototype(examples, background, share or 1.0 / (len(self.weight) + 1))

    def with_prototype(self, name: str, prototype: Prototype) -> "Gate":
        """Return the gate with one more label. Raises `GateError` for one that it has."""
        if name in self.labels:
            raise GateError(f"{name!r} is a label already: forget it first, then teach it anew.")
        taught = join_prototype(self.taught, name, prototype)
        return replace(self, labels=(*self.labels, name), taught=taught)

    def without(self, name: str, heir: str) -> "Gate":
        """Return the gate without a label.

        Without a taught one it is as it was before. The unit of a trained one counts for `heir`
        from then on, and its rows leave the background. Raises `GateError` for a name that is no
        label, or the heir's own.
        """
        if name not in self.labels:
            raise GateError(f"{name!r} is no label; there are {', '.join(self.labels)}.")
        if self.taught is not None and name in self.taught.names:
            labels = tuple(label for label in self.labels if label != name)
            return replace(self, labels=labels, taught=self.taught.without(name))
        if name == heir:
            raise GateError(f"{name!r} gets what no other expert does: it cannot be forgotten.")
        later = self.taught.names if self.taught else ()
        if heir in later:
            raise GateError(f"{heir!r} was taught; a trained label is left to a trained one.")
        rows = tuple(heir if label == name else label for label in self.units)
        background = self.background and self.background.without(columns(self.units, name))
        labels = (*dict.fromkeys(rows), *later)
        return replace(self, labels=labels, rows=rows, background=background)

    def save(self, folder: Path) -> None:
        """Write `gate.safetensors` and `gate.json` into the folder, which is made if need be."""
        more = {**taught_tensors(self.taught), **background_tensors(self.background)}
        more |= first_tensors(self.first)
        head = {
            "format": format_of(more, self.rows),
            "version": self.version,
            "labels": list(self.labels),
            "features": FEATURE_VERSION,
            "encoder": self.encoder,
            "temperature": self.temperature,
            **({"rows": list(self.rows)} if self.rows else {}),
            **first_head(self.first),
        }
        more |= {"weight": self.weight, "bias": self.bias}
        write_gate(folder, {**head, **self.metadata, **head}, more)

    @classmethod
    def load(cls, folder: Path) -> "Gate":
        """Read a gate that `save` wrote.

        Raises `GateError` where a file is missing, is of another kind (pickled weights are never
        read), was made for other features, or does not match its own version.
        """
        head = read_head(folder)
        tensors = read_tensors(folder)
        labels = tuple(head.pop("labels"))
        gate = cls(
            labels=labels,
            weight=tensors["weight"],
            bias=tensors["bias"],
            temperature=head.pop("temperature"),
            encoder=head.pop("encoder"),
            metadata={key: value for key, value in head.items() if key not in _HEAD},
            rows=tuple(head.get("rows", ())),
            taught=read_taught(tensors, labels),
            background=read_background(tensors),
            first=read_first(tensors, head),
        )
        if head["version"] != gate.version:
            raise GateError(
                f"{folder / METADATA_FILE}: version {head['version']!r} is not that of "
                f"{WEIGHTS_FILE} ({gate.version}); the two files do not belong together."
            )
        return gate

    def _shared(self, scores: Matrix, odds: npt.NDArray[np.float32] | None) -> Matrix:
        """Of the units' scores and the taught experts' odds, if there are any."""
        shares = softmax(scores, self.temperature)
        if self.rows:
            shares = shares @ self._owners
        return shares if self.taught is None or odds is None else self.taught.join(shares, odds)

    def _odds(self, vectors: npt.NDArray[Any]) -> npt.NDArray[np.float32] | None:
        return None if self.taught is None else self.taught.logits(vectors.astype(np.float32))

    def _logits(self, features: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return self._layer.logits(features)

    @cached_property
    def _layer(self) -> Layer:
        return Layer(self.weight, self.bias, self.vector_dimensions)

    @cached_property
    def _owners(self) -> Matrix:
        """[units, trained labels] 1 where the unit counts for the label."""
        trained = tuple(dict.fromkeys(self.units))
        return np.array([[float(one == label) for label in trained] for one in self.units])
