"""The model card and licence notice that lie beside every trained adapter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from experts.examples import Example
from experts.training import TrainingReport

SHARE_ALIKE = "CC-BY-SA-4.0"
_NAMES = {
    SHARE_ALIKE: (
        "Creative Commons Attribution-ShareAlike 4.0 International",
        "https://creativecommons.org/licenses/by-sa/4.0/legalcode",
    ),
    "CC-BY-4.0": (
        "Creative Commons Attribution 4.0 International",
        "https://creativecommons.org/licenses/by/4.0/legalcode",
    ),
    "Apache-2.0": ("Apache License 2.0", "https://www.apache.org/licenses/LICENSE-2.0"),
}


def adapter_license(examples: Sequence[Example]) -> str:
    """The licence that the data asks for: share-alike wins, then attribution, else Apache-2.0."""
    licenses = " ".join({e.row.license.upper().replace(" ", "-") for e in examples})
    if "-SA" in licenses:
        chosen = SHARE_ALIKE
    elif "CC-BY" in licenses:
        chosen = "CC-BY-4.0"
    else:
        chosen = "Apache-2.0"
    return chosen


def write_card(
    folder: Path,
    *,
    name: str,
    base: str,
    command: str,
    examples: Sequence[Example],
    report: TrainingReport,
) -> None:
    """Write `README.md` (model card) and `LICENSE` (notice with attribution) into `folder`."""
    license_id = adapter_license(examples)
    sources = Counter((e.row.source or "unnamed", e.row.license or "unnamed") for e in examples)
    (folder / "README.md").write_text(
        _card(name, base, command, license_id, sources, report), encoding="utf-8"
    )
    (folder / "LICENSE").write_text(_notice(name, license_id, sources), encoding="utf-8")


def _card(
    name: str,
    base: str,
    command: str,
    license_id: str,
    sources: Counter[tuple[str, str]],
    report: TrainingReport,
) -> str:
    change = report.loss_after / report.loss_before - 1
    table = "\n".join(f"| {s} | {lic} | {n} |" for (s, lic), n in sorted(sources.items()))
    settings = "\n".join(f"| {key} | {value} |" for key, value in report.options.items())
    return f"""---
base_model: {base}
library_name: peft
license: {license_id.lower()}
---
# Expert adapter `{name}`

A LoRA adapter for the `{name}` domain over `{base}`, stored in float16. It was trained on the
responses of the rows below; prompts carry no loss.

## Command

```
{command}
```

## Result

| | |
|---|---|
| rows | {report.rows} |
| trained tokens (responses) | {report.trained_tokens} |
| optimiser steps | {report.steps} |
| seconds | {report.seconds:.0f} |
| held-out loss before (nats/token) | {report.loss_before:.4f} |
| held-out loss after (nats/token) | {report.loss_after:.4f} ({change:+.1%}) |

The held-out rows are drawn from the same files by a hash of the prompt and were not trained on.

## Data

| source | licence | rows |
|---|---|---|
{table}

## Settings

| option | value |
|---|---|
{settings}

## Licence

{license_id}, see `LICENSE` beside this file. The base model has its own licence. An expert of this
size makes mistakes: its answers are not advice.
"""


def _notice(name: str, license_id: str, sources: Counter[tuple[str, str]]) -> str:
    title, url = _NAMES[license_id]
    credits = "\n".join(f"- {s} ({lic})" for s, lic in sorted(sources))
    return f"""The weights of the adapter "{name}" in this folder are licensed under
{title} ({license_id}).
The full text of the licence: {url}
The licence of the program around them does not cover this folder.

The weights were trained on excerpts of these works, whose authors are credited under their terms:
{credits}
"""
