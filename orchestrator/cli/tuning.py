"""What tuning on labelled questions found, as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.cli.console import out

if TYPE_CHECKING:
    from retrieval.tuning import Tuning

_BAR = 40


def show(collection: str, tuning: Tuning, dry_run: bool) -> None:
    """Print the curve, and what the weight is worth."""
    from rich.table import Table

    table = Table("weight of meaning", "nDCG@10", "")
    best = max(value for _, value in tuning.curve)
    for weight, value in tuning.curve:
        mark = " <" if weight == tuning.weight else ""
        table.add_row(
            f"{weight:.2f}{mark}", f"{value:.4f}", "#" * round(_BAR * value / (best or 1))
        )
    out.print(table)
    out.print(
        f"{tuning.questions} questions, held out: tuned {tuning.tuned:.4f}, "
        f"usual weight {tuning.usual:.2f} {tuning.plain:.4f}, "
        f"reciprocal ranks {tuning.reciprocal:.4f}"
    )
    if not tuning.worthwhile:
        out.print(f"{collection}: not kept, the usual weight does better on held-out questions")
    elif dry_run:
        out.print(f"{collection}: {tuning.weight:.2f} (not written)")
    else:
        out.print(f"{collection}: meaning now weighs {tuning.weight:.2f}")
