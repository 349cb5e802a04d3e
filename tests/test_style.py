"""Rules of this code base that ruff and mypy do not know."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("experts", "retrieval", "router")
PACKAGES = (*ROOMS, "orchestrator")
KNOW_RAY = {"orchestrator/app.py", "orchestrator/cli/serve.py"}
NAMELESS = {"utils", "util", "helpers", "common", "misc", "base", "types", "core"}
# In two pieces, so that this file does not find itself.
FOREIGN = tuple(f"/{folder}/" for folder in ("work", "root"))
UNSAFE_MODULES = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
UNSAFE_CALLS = {("torch", "load"), ("np", "load"), ("numpy", "load")}

MAX_FILE, MAX_FUNCTION = 300, 60


def repository_files() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    found = [ROOT / name for name in listed.stdout.split("\0") if name]
    return [path for path in found if path.is_file()]


def modules(*packages: str) -> list[Path]:
    return sorted(path for package in packages for path in (ROOT / package).rglob("*.py"))


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


def tops(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imported(parsed(path))}


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_there_is_something_to_look_at() -> None:
    assert all(len(modules(package)) > 10 for package in PACKAGES)
    assert len(repository_files()) > 100


def test_every_file_is_named_by_its_noun() -> None:
    assert [name(p) for p in repository_files() if p.stem.lower() in NAMELESS] == []


def test_no_module_is_longer_than_300_lines() -> None:
    sizes = {name(p): len(p.read_text(encoding="utf-8").splitlines()) for p in modules(*PACKAGES)}
    assert {path: size for path, size in sizes.items() if size > MAX_FILE} == {}


def test_no_function_is_longer_than_60_lines() -> None:
    long = [
        f"{name(path)}: {node.name}"
        for path in modules(*PACKAGES)
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno + 1 > MAX_FUNCTION
    ]
    assert long == []


def test_only_the_wiring_and_the_serve_command_know_ray() -> None:
    assert {name(path) for path in modules(*PACKAGES) if "ray" in tops(path)} == KNOW_RAY


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_knows_no_other(room: str) -> None:
    strangers = set(PACKAGES) - {room}
    known = {name(path): tops(path) & strangers for path in modules(room)}
    assert {path: found for path, found in known.items() if found} == {}


def test_no_file_names_a_folder_of_the_machine_it_was_written_on() -> None:
    named = []
    for path in repository_files():
        content = path.read_bytes()
        if b"\0" not in content and any(word.encode() in content for word in FOREIGN):
            named.append(name(path))
    assert named == []


def test_nothing_reads_pickles() -> None:
    readers = []
    for path in modules(*PACKAGES):
        tree = parsed(path)
        calls = {
            (node.value.id, node.attr)
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
        }
        if tops(path) & UNSAFE_MODULES or calls & UNSAFE_CALLS:
            readers.append(name(path))
    assert readers == []
