"""What a service's routers noted of their requests: counts by hour, and a sample as numbers."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from router.lineup import VersionError

TRAFFIC_FOLDER = ".traffic"
HOUR = 3600.0
KEPT = 16
"""Probabilities of a request that are kept: the largest."""

NOT_READ = np.zeros(0, dtype=np.float16)
"""The vector of a sighting until its text is read."""

_FORMAT = 1


@dataclass(frozen=True, eq=False)
class Sighting:
    """One request of the sample: when (seconds since 1970), its sentence vector, and the `KEPT`
    largest probabilities with the places of their experts. Half precision."""

    at: float
    vector: npt.NDArray[np.float16]
    places: npt.NDArray[np.int16]
    probabilities: npt.NDArray[np.float16]


@dataclass
class Hour:
    """The requests of one hour, `number` hours after 1970.

    `chosen` counts experts that the router chose, `named` those whose weights the caller set.
    `sample` is drawn uniformly from the requests that were `offered` for it.
    """

    number: int
    requests: int = 0
    chosen: Counter[str] = field(default_factory=Counter)
    named: Counter[str] = field(default_factory=Counter)
    sample: list[Sighting] = field(default_factory=list)
    offered: int = 0


@dataclass
class Record:
    """The hours of one router, oldest first; places of sightings are those of `names`."""

    names: tuple[str, ...]
    hours: list[Hour]

    @property
    def sample(self) -> list[Sighting]:
        """The sightings of all hours."""
        return [sighting for hour in self.hours for sighting in hour.sample]

    def bare(self) -> Record:
        """Return the counts without the sample."""
        hours = [Hour(h.number, h.requests, h.chosen, h.named) for h in self.hours]
        return Record(self.names, hours)

    def since(self, moment: float) -> Record:
        """Return what came since then: hours that ended later, and sightings of the time."""
        kept = [hour for hour in self.hours if (hour.number + 1) * HOUR > moment]
        hours = [
            Hour(h.number, h.requests, h.chosen, h.named, [s for s in h.sample if s.at >= moment])
            for h in kept
        ]
        return Record(self.names, hours)

    def probabilities(self, names: Sequence[str]) -> npt.NDArray[np.float64]:
        """[sightings, names] probabilities of these experts; 0 where they were not kept."""
        sample = self.sample
        own = np.zeros((len(sample), len(self.names) + 1))
        for row, sighting in enumerate(sample):
            own[row, sighting.places] = sighting.probabilities
        at = {name: place for place, name in enumerate(self.names)}
        # A name that the record does not know takes the last column, which is empty.
        return own[:, [at.get(name, len(self.names)) for name in names]]


def write_record(path: Path, record: Record) -> None:
    """Replace the file in one step. Raises `OSError` where that fails."""
    sample = record.sample
    width = max((len(sighting.vector) for sighting in sample), default=0)
    few = min(KEPT, len(record.names))
    tensors = {
        "at": np.array([s.at for s in sample], dtype=np.float64),
        "vectors": _stacked([s.vector for s in sample], width, np.float16),
        "places": _stacked([s.places for s in sample], few, np.int16),
        "probabilities": _stacked([s.probabilities for s in sample], few, np.float16),
    }
    hours = [
        {"hour": h.number, "requests": h.requests, "chosen": h.chosen, "named": h.named}
        for h in record.hours
    ]
    head = {"format": _FORMAT, "names": list(record.names), "hours": hours}
    scratch = path.with_name(f".{path.name}.new")
    scratch.write_bytes(save(tensors, {"traffic": json.dumps(head, ensure_ascii=False)}))
    os.replace(scratch, path)


def read_records(folder: Path) -> Iterator[Record]:
    """Yield the records of all routers that wrote into the folder.

    Raises `VersionError` for a file that is no record.
    """
    for path in sorted(folder.glob("*.safetensors")):
        try:
            yield read_record(path)
        except FileNotFoundError:
            # It was removed since it was listed.
            continue


def read_record(path: Path) -> Record:
    """Read one router's file.

    Raises `VersionError` for what is no record, `FileNotFoundError` where it is gone.
    """
    try:
        with safe_open(path, framework="np") as file:
            head = json.loads((file.metadata() or {})["traffic"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        return _record(head, tensors)
    except FileNotFoundError:
        raise
    except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
        raise VersionError(
            f"{path}: not a record of traffic ({error}); delete it to go on."
        ) from error


def _record(head: Mapping[str, Any], tensors: Mapping[str, npt.NDArray[Any]]) -> Record:
    if head["format"] != _FORMAT:
        raise ValueError(f"`format` is {head['format']!r}, this program reads {_FORMAT}")
    hours = {
        int(h["hour"]): Hour(
            int(h["hour"]), int(h["requests"]), Counter(h["chosen"]), Counter(h["named"])
        )
        for h in head["hours"]
    }
    rows = zip(
        tensors["at"].tolist(),
        tensors["vectors"],
        tensors["places"],
        tensors["probabilities"],
        strict=True,
    )
    for at, vector, places, probabilities in rows:
        hours[int(at // HOUR)].sample.append(Sighting(at, vector, places, probabilities))
    return Record(tuple(head["names"]), [hours[number] for number in sorted(hours)])


def _stacked(rows: Sequence[npt.NDArray[Any]], width: int, kind: type) -> npt.NDArray[Any]:
    return np.stack(rows) if rows else np.zeros((0, width), dtype=kind)
