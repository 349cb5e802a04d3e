"""Which versions of the router act, wait and watch: one small file that is whole at any moment."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

LINEUP_FILE = "lineup.json"
ORIGIN = "0"
"""The version that the configuration names itself; it lies outside of the registry."""

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_FORMAT = 1


class VersionError(ValueError):
    """A version, or the record of them, that cannot be used; the message says what to do."""


@dataclass(frozen=True)
class Change:
    """One change of the registry: the `serial`-th, at a time (ISO 8601, UTC), by whom and why.

    `before` and `after` are what it was about: the version that acts for `promote`, "3 at 10 %"
    for `canary`, and "-" for nothing.
    """

    serial: int
    at: str
    by: str
    action: str
    before: str
    after: str
    why: str = ""


@dataclass(frozen=True)
class Lineup:
    """The version that acts, the one before it, the one that watches, and a canary with its share.

    `share` lies between 0 and 1 and is 0 without a canary. `change` is the latest change.
    """

    current: str = ORIGIN
    previous: str | None = None
    shadow: str | None = None
    canary: str | None = None
    share: float = 0.0
    change: Change | None = None

    def roles(self, name: str) -> list[str]:
        """What this version is used for: any of current, previous, shadow and canary."""
        held = ("current", "previous", "shadow", "canary")
        return [role for role in held if getattr(self, role) == name]


def check_name(name: str) -> str:
    """Return the name of a version unchanged.

    Raises `VersionError` for what cannot name one: names are folders, so no dots and no slashes.
    """
    if not _NAME.fullmatch(name):
        raise VersionError(
            f"{name!r} cannot name a version: use a-z, 0-9, - and _, at most 63, not first - or _."
        )
    return name


def check_share(share: float) -> float:
    """Return a canary's share unchanged; raises `VersionError` unless it is above 0, at most 1."""
    if not (math.isfinite(share) and 0.0 < share <= 1.0):
        raise VersionError(f"a canary's share must be above 0 and at most 1, not {share}.")
    return share


def read_lineup(folder: Path) -> Lineup:
    """Read the lineup of a registry; without a file, version 0 acts.

    Raises `VersionError` for a file that cannot be read or says what no lineup can.
    """
    path = folder / LINEUP_FILE
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return Lineup()
    except (OSError, ValueError) as error:
        raise VersionError(f"{path}: cannot be read ({error}).") from error
    try:
        return _lineup(body)
    except (KeyError, TypeError, ValueError) as error:
        raise VersionError(f"{path}: not a lineup ({type(error).__name__}: {error}).") from error


def write_lineup(folder: Path, lineup: Lineup) -> None:
    """Replace the lineup in one step that survives a kill or a loss of power at any point.

    The caller holds the registry's lock.
    """
    path = folder / LINEUP_FILE
    scratch = path.with_name(f".{LINEUP_FILE}.new")
    write_synced(scratch, json.dumps({"format": _FORMAT, **asdict(lineup)}, indent=2) + "\n")
    os.replace(scratch, path)
    sync_folder(folder)


def write_synced(path: Path, text: str) -> None:
    """Write a file and wait until it is on disk."""
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Wait until what was renamed in a folder is on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def change_from(body: Mapping[str, Any]) -> Change:
    """Return the change that `asdict` made a mapping of.

    Raises `KeyError`, `TypeError` or `ValueError` for any other mapping.
    """
    texts = {key: body[key] for key in ("at", "by", "action", "before", "after", "why")}
    if type(body["serial"]) is not int or not all(isinstance(v, str) for v in texts.values()):
        raise TypeError("a change holds a serial number and texts")
    return Change(serial=body["serial"], **texts)


def _lineup(body: Mapping[str, Any]) -> Lineup:
    if body["format"] != _FORMAT:
        raise ValueError(f"`format` is {body['format']!r}, this program reads {_FORMAT}")
    names = {key: body[key] for key in ("current", "previous", "shadow", "canary")}
    for key, name in names.items():
        if name is not None or key == "current":
            check_name(name)
    share = body["share"] if names["canary"] is None else check_share(body["share"])
    change = body["change"] if body["change"] is None else change_from(body["change"])
    return Lineup(**names, share=float(share), change=change)
