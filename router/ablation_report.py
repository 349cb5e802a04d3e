"""The ablation in words: a section of the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

FIGURES = {
    "accuracy": "accuracy",
    "macro_f1": "macro-F1",
    "ece": "calibration error",
    "flips": "flipped",
    "follow_ups": "follow-ups right",
}
"""The figures of a variant, with their names."""

_LEAD = """Each row leaves one part out and trains the gate again, on the same rows with the same
seed, from labels alone. In brackets: the change from the whole with its 95 % interval (paired
bootstrap). Flipped: the share of changed prompts (typos, wrappings, orders, other text) whose
leading expert is another. Follow-ups: a few words ("Why?") behind a prompt, right where the most
probable expert is still the prompt's. Without history the same gate reads the last message alone;
without parts only the first 1,000 characters are read."""


def ablation_section(found: Mapping[str, Any] | None) -> str:
    """Return the section as Markdown; nothing where nothing was left out."""
    if not found:
        return ""
    rows = [
        [name if name == "whole" else f"without {name}", one["what"], *map(_cell, _pairs(one))]
        for name, one in found.items()
    ]
    languages = sorted({language for one in found.values() for language in one["languages"]})
    shares = [
        [name, *(f"{one['languages'].get(language, 0.0):.3f}" for language in languages)]
        for name, one in found.items()
    ]
    return "\n\n".join(
        (
            "## Ablation",
            _LEAD,
            _table(["", "what it is", *FIGURES.values()], rows),
            "Accuracy by language:",
            _table(["without", *languages], shares),
        )
    )


def _pairs(one: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [one[name] for name in FIGURES]


def _cell(figure: Mapping[str, Any]) -> str:
    value, change = figure["value"]["value"], figure["change"]
    if change["low"] == change["high"] == 0.0:
        return f"{value:.4f}"
    ends = f"{change['low']:+.4f}, {change['high']:+.4f}"
    return f"{value:.4f} ({change['value']:+.4f} [{ends}])"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
