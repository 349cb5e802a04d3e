"""Corrected decisions as numbers: what a service kept of them in place of their texts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from router.dataset import DatasetError
from router.features import FEATURE_VERSION, Vector
from router.surface import SURFACE_DIMENSIONS

_TENSORS = ("features", "starts", "surfaces")
_HEAD = ("domains", "surface_domains", "version", "encoder", "dimensions")


@dataclass(frozen=True, eq=False)
class FeatureRows:
    """Rows to fit on, each labelled with the expert that should have answered.

    `features` [m, d + surface] are those of n decisions, of the parts from `starts` [n] on, with
    `labels` [n]. Of decisions that a first stage settled there are `surfaces` [k, surface] alone,
    with `surface_labels` [k]. `weight` is what each counts, beside 1 for a prompt.
    """

    features: Vector
    starts: npt.NDArray[np.int64]
    labels: tuple[str, ...]
    surfaces: Vector
    surface_labels: tuple[str, ...]
    weight: float = 1.0

    def __len__(self) -> int:
        return len(self.labels) + len(self.surface_labels)

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """[n] parts of each decision."""
        return np.diff(self.starts, append=len(self.features)).astype(np.int64)


def read_feature_rows(
    paths: Sequence[Path], encoder: str, dimensions: int, weight: float = 1.0
) -> FeatureRows:
    """Read files of `collegium router rows --features`, one after the other.

    Raises `DatasetError` for a file that is none, is damaged, or was made with another release or
    another encoder than this one, whose vectors have so many `dimensions`; `OSError` for a missing
    one.
    """
    found = [_read(path, encoder, dimensions) for path in paths]
    offsets = np.cumsum([0, *(len(one.features) for one in found)])
    return FeatureRows(
        features=np.concatenate([_nothing(dimensions), *(one.features for one in found)]),
        starts=np.concatenate(
            [
                np.zeros(0, dtype=np.int64),
                *(one.starts + offset for one, offset in zip(found, offsets[:-1], strict=True)),
            ]
        ),
        labels=tuple(label for one in found for label in one.labels),
        surfaces=np.concatenate([_nothing(0), *(one.surfaces for one in found)]),
        surface_labels=tuple(label for one in found for label in one.surface_labels),
        weight=weight,
    )


def _read(path: Path, encoder: str, dimensions: int) -> FeatureRows:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file.")
    try:
        with safe_open(path, framework="np") as file:
            head = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except SafetensorError as error:
        raise DatasetError(f"{path}: not a safetensors file ({error}).") from error
    if set(tensors) != set(_TENSORS) or set(head) != set(_HEAD):
        raise DatasetError(
            f"{path}: not written by `collegium router rows --features` of this release: it holds "
            f"{sorted(tensors)} and {sorted(head)}."
        )
    _check_origin(path, head, encoder, dimensions)
    rows = FeatureRows(
        _filled(tensors["features"], dimensions),
        tensors["starts"].astype(np.int64),
        _names(path, head["domains"]),
        _filled(tensors["surfaces"], 0),
        _names(path, head["surface_domains"]),
    )
    _check_shapes(path, rows, dimensions)
    return rows


def _check_origin(path: Path, head: dict[str, str], encoder: str, dimensions: int) -> None:
    wanted = {"version": FEATURE_VERSION, "encoder": encoder, "dimensions": str(dimensions)}
    for key, value in wanted.items():
        # A log without sentence vectors fits every encoder.
        if head[key] != value and not (key == "dimensions" and head["domains"] == "[]"):
            raise DatasetError(
                f"{path}: `{key}` is {head[key]!r}, this training reads {value!r}: its rows were "
                "read in another way and cannot be used."
            )


def _check_shapes(path: Path, rows: FeatureRows, dimensions: int) -> None:
    features, surfaces, starts = rows.features, rows.surfaces, rows.starts
    whole = dimensions + SURFACE_DIMENSIONS
    sound = (
        _fits(features, whole)
        and _fits(surfaces, SURFACE_DIMENSIONS)
        and len(surfaces) == len(rows.surface_labels)
        and starts.shape == (len(rows.labels),)
        and bool(len(starts)) == bool(len(features))
        and (not len(starts) or starts[0] == 0)
        and bool((rows.counts > 0).all())
        and bool(np.isfinite(features).all() and np.isfinite(surfaces).all())
    )
    if not sound:
        raise DatasetError(f"{path}: its rows are damaged: write it again.")


def _fits(rows: npt.NDArray[Any], columns: int) -> bool:
    return rows.ndim == 2 and (not len(rows) or rows.shape[1] == columns)


def _names(path: Path, text: str) -> tuple[str, ...]:
    try:
        names = json.loads(text)
    except ValueError as error:
        raise DatasetError(f"{path}: its domains are not JSON ({error}).") from error
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise DatasetError(f"{path}: its domains must be names of experts; got {text[:80]!r}.")
    return tuple(names)


def _filled(rows: npt.NDArray[Any], dimensions: int) -> Vector:
    return rows.astype(np.float32) if rows.size else _nothing(dimensions)


def _nothing(dimensions: int) -> Vector:
    return np.zeros((0, dimensions + SURFACE_DIMENSIONS), dtype=np.float32)
