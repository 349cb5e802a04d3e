"""The folder of a report: a page to read, every figure as JSON, plots."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.cli.console import err

if TYPE_CHECKING:
    from router.plots import Plot

Page = Callable[[Sequence[str]], str]
"""Makes the page, given the names of the plots beside it."""


def write_report(
    folder: Path, found: Mapping[str, Any], page: Page, plots: Mapping[str, Plot] | None = None
) -> Path:
    """Write a report and return its page; without matplotlib it has no plots.

    `plots` are those of a router unless given.
    """
    from router.plots import can_plot, draw
    from router.report import FIGURES_FILE, REPORT_FILE

    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(found, indent=1, ensure_ascii=False)
    (folder / FIGURES_FILE).write_text(text + "\n", encoding="utf-8")
    drawn: tuple[str, ...] = ()
    if can_plot():
        drawn = draw(found, folder, plots)
    else:
        err.print("no plots: matplotlib is not installed; pip install 'collegium[eval]'")
    path = folder / REPORT_FILE
    path.write_text(page(drawn), encoding="utf-8")
    return path
