"""The state of an unfinished training run on disk, one file that changes in one rename."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

_STATE = "state.safetensors"
_WRITING = "state.writing"


class CheckpointError(RuntimeError):
    """A checkpoint cannot be read; the message names it and says what to do."""


@dataclass(frozen=True)
class Saved:
    """What a checkpoint holds: steps done, seconds they took, tensors by name."""

    done: int
    seconds: float
    tensors: Mapping[str, torch.Tensor]


class Checkpoint:
    """The checkpoint of the run with this fingerprint; one of another run counts as none."""

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self._folder, self._fingerprint = folder, fingerprint

    def save(self, saved: Saved) -> None:
        """Replace the last checkpoint. A crash at any moment leaves that one or the new one."""
        place = {
            "done": saved.done,
            "seconds": saved.seconds,
            "fingerprint": self._fingerprint,
        }
        self._folder.mkdir(parents=True, exist_ok=True)
        writing = self._folder / _WRITING
        save_file(dict(saved.tensors), writing, metadata={"place": json.dumps(place)})
        settle(writing)
        writing.replace(self._folder / _STATE)
        settle(self._folder)

    def load(self) -> Saved | None:
        """The last checkpoint, if there is one of this run.

        Raises:
            CheckpointError: the file is damaged.
        """
        path = self._folder / _STATE
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                place = json.loads((file.metadata() or {}).get("place", "{}"))
            tensors = load_file(path)
        except SafetensorError as error:
            raise CheckpointError(
                f"checkpoint {str(path)!r} is damaged ({error}): delete it to begin anew"
            ) from error
        ours = place.get("fingerprint") == self._fingerprint
        return Saved(place["done"], place["seconds"], tensors) if ours else None

    def remove(self) -> None:
        """The run is over."""
        shutil.rmtree(self._folder, ignore_errors=True)


def settle(path: Path) -> None:
    """Wait until a file or folder is on the disk: before its new name is, or it may be empty."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
