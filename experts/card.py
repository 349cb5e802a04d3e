"""The model card and licence notice that lie beside every trained adapter."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from experts.examples import UNNAMED, Example
from experts.training import TrainingReport

SHARE_ALIKE = "CC-BY-SA-4.0"
ATTRIBUTION = "CC-BY-4.0"
PERMISSIVE = "Apache-2.0"
OTHER = "other"
_NAMES = {
    SHARE_ALIKE: (
        "Creative Commons Attribution-ShareAlike 4.0 International",
        "https://creativecommons.org/licenses/by-sa/4.0/legalcode",
    ),
    ATTRIBUTION: (
        "Creative Commons Attribution 4.0 International",
        "https://creativecommons.org/licenses/by/4.0/legalcode",
    ),
    PERMISSIVE: ("Apache License 2.0", "https://www.apache.org/licenses/LICENSE-2.0"),
}
# ShareAlike 1.0 is missing: it knows no later versions, so 4.0 would not satisfy it.
_SHARE_ALIKE = re.compile(r"CC-BY-SA(-(2\.0|2\.5|3\.0|4\.0)(-[A-Z]{2,4})?)?")
_ATTRIBUTION = re.compile(r"CC-BY(-\d\.\d(-[A-Z]{2,4})?)?")
_PERMISSIVE = re.compile(
    r"(PACKAGE-)?(MIT(-0)?|APACHE(-LICENSE)?(-2\.0)?|BSD(-[0-4]-CLAUSE)?|0BSD|ISC|ZLIB|UNLICENSE"
    r"|CC0(-1\.0)?|PSF-2\.0|PYTHON-2\.0|US-GOVERNMENT-WORK|PUBLIC-DOMAIN(-TEXT)?)(-LICENSE)?"
)
_RESTRICTION = re.compile(
    r"\bN[CD]\b|NON-?COMMERCIAL|NO-?DERIV|GPL|COPYLEFT|RESEARCH|ALL-RIGHTS", re.ASCII
)


def license_terms(text: str) -> str:
    """The licence that an adapter may bear if it learnt from data under this one.

    `OTHER` for non-commercial, no-derivatives and GPL terms and for everything that is not known:
    every part of a text such as "MIT; public domain" must be.
    """
    shape = re.sub(r"[\s_-]+", "-", text.strip().upper())
    if _RESTRICTION.search(shape):
        return OTHER
    outside = re.sub(r"\([^)]*\)", "", shape)
    parts = [part.strip("-") for part in re.split(r"[;,/]|-AND-|-OR-", outside)]
    known = (
        (SHARE_ALIKE, _SHARE_ALIKE),
        (ATTRIBUTION, _ATTRIBUTION),
        (PERMISSIVE, _PERMISSIVE),
    )
    found = [next((name for name, form in known if form.fullmatch(part)), OTHER) for part in parts]
    return strictest(found)


def strictest(licenses: Iterable[str]) -> str:
    """Unknown terms win, then share-alike, then attribution, else Apache-2.0."""
    found = set(licenses)
    return next((name for name in (OTHER, SHARE_ALIKE, ATTRIBUTION) if name in found), PERMISSIVE)


def adapter_license(examples: Sequence[Example]) -> str:
    """The licence that the data asks for; `OTHER` if any of it forbids one or is not known."""
    return strictest(license_terms(text) for text in {e.row.license for e in examples})


def restricted_licenses(examples: Sequence[Example]) -> dict[str, int]:
    """Licences of the data that leave the adapter without one, with their numbers of rows."""
    counts = Counter(e.row.license or UNNAMED for e in examples)
    return {text: n for text, n in sorted(counts.items()) if license_terms(text) == OTHER}


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
    license_id, restricted = adapter_license(examples), restricted_licenses(examples)
    sources = Counter((e.row.source or UNNAMED, e.row.license or UNNAMED) for e in examples)
    told = _told(license_id, restricted)
    (folder / "README.md").write_text(
        _card(name, base, command, license_id, told, sources, report), encoding="utf-8"
    )
    (folder / "LICENSE").write_text(_notice(name, license_id, told, sources), encoding="utf-8")


def _card(
    name: str,
    base: str,
    command: str,
    license_id: str,
    told: str,
    sources: Counter[tuple[str, str]],
    report: TrainingReport,
) -> str:
    change = report.loss_after / report.loss_before - 1
    rows = [(_cell(s), _cell(lic), n) for (s, lic), n in sorted(sources.items())]
    table = "\n".join(f"| {source} | {lic} | {n} |" for source, lic, n in rows)
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
| held-out loss after (nats/token) | {report.loss_after:.4f} ({change:+.1%}) |{_kept(report)}

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

{told}The base model has its own licence. An expert of this
size makes mistakes: its answers are not advice.
"""


def _kept(report: TrainingReport) -> str:
    if not report.kept:
        return ""
    return f"""
| rows of other domains on which it was to stay as the base is | {report.kept} |
| divergence from the base on held-out rows of them (nats/token) | {report.divergence:.4f} |"""


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _told(license_id: str, restricted: Mapping[str, int]) -> str:
    if license_id != OTHER:
        return f"{license_id}, see `LICENSE` beside this file. "
    listed = "\n".join(f"- {_cell(text)} ({n} rows)" for text, n in restricted.items())
    return f"""No licence is granted for these weights. Some of the data is under terms that
restrict what may be done with a work made from it, or under terms that are not known:

{listed}

Read those terms before you use or pass on the weights. """


def _notice(name: str, license_id: str, told: str, sources: Counter[tuple[str, str]]) -> str:
    credits = "\n".join(f"- {s} ({lic})" for s, lic in sorted(sources))
    if license_id == OTHER:
        granted = f'The weights of the adapter "{name}" in this folder. {told.rstrip()}'
    else:
        title, url = _NAMES[license_id]
        granted = f"""The weights of the adapter "{name}" in this folder are licensed under
{title} ({license_id}).
The full text of the licence: {url}"""
    return f"""{granted}
The licence of the program around them does not cover this folder.

The weights were trained on excerpts of these works, whose authors are credited under their terms:
{credits}
"""
