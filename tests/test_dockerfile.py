"""The Dockerfile: what it says against the chart, and, when asked for, a real build and run.

`COLLEGIUM_TEST_BUILDAH=1` builds it with buildah. `COLLEGIUM_TEST_BUILD_ARGS` adds arguments, such
as `--build-arg BASE_IMAGE=...` for another base image, or `--volume` for a pip configuration.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
CHART = ROOT / "helm" / "collegium"
TEXT = (ROOT / "Dockerfile").read_text()
CONSTRAINTS = dict(re.findall(r"^([\w-]+)==(.+)$", (ROOT / "constraints.txt").read_text(), re.M))


def test_the_image_has_the_ray_that_the_chart_names() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert CONSTRAINTS["ray"] == values["rayVersion"]


def test_the_image_runs_as_the_user_and_in_the_home_of_the_chart() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    context = values["podSecurityContext"]
    assert f"USER {context['runAsUser']}:{context['runAsGroup']}" in TEXT
    assert f"COLLEGIUM_HOME={values['home']}" in TEXT


def test_the_baked_example_names_folders_of_the_image() -> None:
    config = yaml.safe_load((CHART / "examples" / "baked.yaml").read_text())["config"]
    sources = [config["models"]["base"]["source"], config["encoder"]["source"]]
    (baked,) = re.findall(r'BAKED_MODELS="([^"]+)" \.', TEXT)
    assert sources == [f"/opt/collegium/models/{name}" for name in baked.split()]


def test_the_build_context_holds_what_is_copied_and_no_more() -> None:
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", TEXT, re.MULTILINE)
    wanted = {name for line in copied for name in line.split()}
    allowed = {
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"
    }
    assert allowed == wanted


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    if os.environ.get("COLLEGIUM_TEST_BUILDAH") != "1":
        pytest.skip("building takes minutes and gigabytes: set COLLEGIUM_TEST_BUILDAH=1")
    if shutil.which("buildah") is None:
        pytest.skip("buildah is not installed")
    tag = "localhost/collegium:test"
    extra = shlex.split(os.environ.get("COLLEGIUM_TEST_BUILD_ARGS", ""))
    subprocess.run(["buildah", "bud", "--tag", tag, *extra, str(ROOT)], check=True)
    container = _buildah("from", "--pull-never", tag)
    try:
        yield container
    finally:
        _buildah("rm", container)


def _buildah(*arguments: str) -> str:
    done = subprocess.run(["buildah", *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.mark.timeout(3600)
def test_the_built_image_starts_the_command_line_without_root(image: str) -> None:
    assert _buildah("run", image, "--", "id", "-u") == "1000"
    assert "OpenAI-compatible" in _buildah("run", image, "--", "collegium", "--help")


@pytest.mark.timeout(3600)
def test_the_built_image_has_the_ray_of_the_chart_also_in_a_login_shell(image: str) -> None:
    seen = _buildah("run", image, "--", "bash", "-lc", "ray --version")
    assert CONSTRAINTS["ray"] in seen


@pytest.mark.timeout(3600)
def test_the_built_image_carries_what_the_packages_need_at_run_time(image: str) -> None:
    program = (
        "import experts, faiss, ray, router, retrieval, torch, transformers; print('all here')"
    )
    assert _buildah("run", image, "--", "python3", "-c", program).endswith("all here")
    check = "from orchestrator.config import Config; print(sorted(Config.load().experts))"
    assert "legal" in _buildah("run", image, "--", "python3", "-c", check)
