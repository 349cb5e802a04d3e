"""One version of the router: a folder with a gate, its report, and what both were made of."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from router.gate import Gate, GateError
from router.lineup import ORIGIN, VersionError, check_name, sync_folder, write_synced

MANIFEST_FILE = "version.json"
REPORT_FILE = "report.json"

_FORMAT = 1


@dataclass(frozen=True)
class Signature:
    """Who makes a change, and why."""

    by: str
    why: str = ""


@dataclass(frozen=True)
class Version:
    """A version as its manifest describes it.

    `hash` is the gate's own version, which decisions bear; `dimensions` the length of the sentence
    vectors that it reads; `data` the fingerprint of its training data; `added` a time (ISO 8601,
    UTC). `report` holds the figures that quality bars look at, `files` the SHA-256 of each file.
    """

    name: str
    folder: Path
    hash: str
    labels: tuple[str, ...]
    encoder: str
    dimensions: int
    data: str
    added: str
    by: str
    why: str
    report: Mapping[str, Any]
    files: Mapping[str, str]

    def gate(self) -> Gate:
        """Load the gate.

        Raises `VersionError` where a file is missing or was changed, or the gate cannot be read.
        """
        for name, digest in self.files.items():
            path = self.folder / name
            if not path.is_file() or _sha256(path) != digest:
                raise VersionError(
                    f"version {self.name}: {path} is missing or was changed since it was added; "
                    "remove the version and add it anew."
                )
        gate = _gate(self.name, self.folder)
        if gate.version != self.hash:
            raise VersionError(
                f"version {self.name}: the gate is {gate.version}, not {self.hash} as its "
                f"{MANIFEST_FILE} says; remove the version and add it anew."
            )
        return gate


def origin_version(folder: Path) -> Version:
    """Version 0: the gate that the configuration names, described by itself.

    Raises `VersionError` where there is no readable gate.
    """
    gate = _gate(ORIGIN, folder)
    report = {**gate.metadata, **_mapping(folder / REPORT_FILE, optional=True)}
    return _version(ORIGIN, folder, gate, Signature("configuration"), report, {})


def stage(
    name: str, source: Path, folder: Path, signature: Signature, report: Path | None
) -> Version:
    """Copy a gate's files into a new folder, with manifest and report, and wait for the disk.

    The report is what training wrote into the gate's metadata, then the `report.json` beside it,
    then the file `report`; later ones win. Raises `VersionError` where the source holds no
    readable gate or a report is no JSON object.
    """
    figures = _mapping(source / REPORT_FILE, optional=True)
    if report is not None:
        figures = {**figures, **_mapping(report)}
    _gate(name, source)
    folder.mkdir(parents=True)
    for path in sorted(source.iterdir()):
        if path.is_file() and path.name not in (MANIFEST_FILE, REPORT_FILE):
            shutil.copyfile(path, folder / path.name)
    # The copy is what will be served, so the copy is what is described.
    gate = _gate(name, folder)
    text = json.dumps({**gate.metadata, **figures}, indent=2, ensure_ascii=False, default=str)
    write_synced(folder / REPORT_FILE, text + "\n")
    files = {path.name: _sha256(path) for path in sorted(folder.iterdir())}
    version = _version(name, folder, gate, signature, {**gate.metadata, **figures}, files)
    manifest = {
        "format": _FORMAT,
        "hash": version.hash,
        "labels": list(version.labels),
        "encoder": version.encoder,
        "dimensions": version.dimensions,
        "temperature": gate.temperature,
        "data": version.data,
        "added": version.added,
        "by": version.by,
        "why": version.why,
        "files": files,
    }
    write_synced(folder / MANIFEST_FILE, json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
    for path in folder.iterdir():
        _sync(path)
    sync_folder(folder)
    return version


def read_version(name: str, folder: Path) -> Version:
    """Read manifest and report of a version that `stage` made; the gate is not loaded.

    Raises `VersionError` where there is none, or its manifest or report is broken.
    """
    path = folder / MANIFEST_FILE
    if not folder.is_dir():
        raise VersionError(f"there is no version {name!r}; `collegium router list` shows them.")
    body = _mapping(path)
    if body.get("format") != _FORMAT:
        raise VersionError(
            f"{path}: `format` is {body.get('format')!r}, this program reads {_FORMAT}."
        )
    texts = ("hash", "encoder", "data", "added", "by", "why")
    labels, files, dimensions = body.get("labels"), body.get("files"), body.get("dimensions")
    sound = (
        all(isinstance(body.get(key), str) for key in texts)
        and _are_texts(labels)
        and isinstance(dimensions, int)
        and isinstance(files, dict)
        and all(_is_plain(key) and isinstance(v, str) for key, v in files.items())
    )
    if not sound:
        raise VersionError(f"{path}: not the manifest of a version; remove it and add it anew.")
    return Version(
        name=check_name(name),
        folder=folder,
        labels=tuple(labels or ()),
        dimensions=int(dimensions or 0),
        report=_mapping(folder / REPORT_FILE),
        files=dict(files or {}),
        **{key: str(body[key]) for key in texts},
    )


def fingerprint_of(metadata: Mapping[str, Any]) -> str:
    """Return the fingerprint of a gate's training data.

    That is `data_fingerprint` where training wrote one, else twelve hex digits over its table of
    sources with their rows; empty where the metadata tells neither.
    """
    written, sources = metadata.get("data_fingerprint"), metadata.get("data")
    if isinstance(written, str) or not sources:
        return str(written or "")
    text = json.dumps(sources, sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def now() -> str:
    """The present time, ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _version(
    name: str,
    folder: Path,
    gate: Gate,
    signature: Signature,
    report: Mapping[str, Any],
    files: Mapping[str, str],
) -> Version:
    return Version(
        name=name,
        folder=folder,
        hash=gate.version,
        labels=gate.labels,
        encoder=gate.encoder,
        dimensions=gate.vector_dimensions,
        data=fingerprint_of(gate.metadata),
        added=now() if files else "",
        by=signature.by,
        why=signature.why,
        report=report,
        files=files,
    )


def _gate(name: str, folder: Path) -> Gate:
    try:
        return Gate.load(folder)
    except (GateError, OSError) as error:
        raise VersionError(f"version {name}: {error}") from error


def _mapping(path: Path, *, optional: bool = False) -> dict[str, Any]:
    if optional and not path.exists():
        return {}
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise VersionError(f"{path}: cannot be read ({error}).") from error
    if not isinstance(body, dict):
        raise VersionError(f"{path}: expected a JSON object, found {type(body).__name__}.")
    return body


def _is_plain(name: str) -> bool:
    return name == Path(name).name


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, str) for v in value)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
