"""Small gates in folders, as training writes them, and a registry of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from test_router_routing import toy_gate

from router.bars import Bar
from router.gate import Gate
from router.standards import Standards
from router.version import Signature
from router.versions import Registry

BY = Signature("tester@here", "because")
EXPERTS = ("general", "code", "legal", "multilingual")
STANDARDS = Standards(
    (
        Bar("held_out.accuracy", at_least=0.9, drop=0.01),
        Bar("held_out.ece", at_most=0.05, rise=0.02),
    ),
    EXPERTS,
)


def gate(shift: float = 0.0, **report: Any) -> Gate:  # noqa: ANN401
    """The toy gate with the bias of `code` shifted, and figures that pass unless given."""
    made = toy_gate()
    made.bias[0] += shift
    held_out = {"accuracy": 0.98, "ece": 0.02, **report}
    data = [{"source": "words", "license": "none", "rows": 4}]
    return replace(made, metadata={"held_out": held_out, "data": data, "seed": 0})


def saved(folder: Path, shift: float = 0.0, **report: Any) -> Path:  # noqa: ANN401
    """A folder with such a gate."""
    gate(shift, **report).save(folder)
    return folder


def registry_in(folder: Path, *shifts: float) -> Registry:
    """A registry with version 0, and one version more for each shift."""
    made = Registry(folder / "registry", saved(folder / "origin"))
    for number, shift in enumerate(shifts):
        made.add(saved(folder / f"gate-{number}", shift), BY)
    return made


def tree(folder: Path) -> Mapping[str, bytes]:
    """Every file below a folder with its content."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}
