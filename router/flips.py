"""How many decisions change when the same is said otherwise."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from router.dataset import LabelledPrompt, hash_share, labelled
from router.intervals import Interval, Macro, mean_interval
from router.memory import EncoderMemory
from router.robustness import TRANSFORMS, Transform
from router.router import Router
from router.trials import Trials, domain, run_trials
from router.vectors import Progress


@dataclass(frozen=True)
class Flips:
    """One transform on `rows` rows: `flipped` is the share whose leading expert changed.

    `by_domain` tells the shares apart: where a prompt has several labels, two experts may share
    the lead, and either may come first. `single` is the share of the rows with one label (None
    without any). `accuracy` is the share whose most probable expert is right after the change;
    `examples` are (text as changed, leader before, leader after), a few at most.
    """

    what: str
    rows: int
    flipped: Interval
    single: Interval | None
    by_domain: dict[str, float]
    accuracy: float
    examples: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class Translation:
    """Rows that are translations of a row of one label: how many still have its expert chosen."""

    rows: int
    kept: Interval
    by_language: dict[str, float]


def sample(rows: Sequence[LabelledPrompt], per_domain: int, seed: int) -> list[LabelledPrompt]:
    """Return at most so many rows of every domain, chosen by a hash of their text."""
    groups: dict[str, list[LabelledPrompt]] = {}
    for row in rows:
        groups.setdefault(domain(row), []).append(row)
    return [
        row
        for name in sorted(groups)
        for row in sorted(groups[name], key=lambda row: hash_share(row.text, seed))[:per_domain]
    ]


def count_flips(
    router: Router,
    memory: EncoderMemory,
    rows: Sequence[LabelledPrompt],
    seed: int = 0,
    transforms: Mapping[str, Transform] = TRANSFORMS,
    progress: Progress | None = None,
) -> dict[str, Flips]:
    """Return the flips of every transform; the router must have been made with this memory."""
    before = run_trials(router, rows)
    wrong = _wrong_experts(before, seed)
    changed = {
        name: [
            replace(row, text=transform.apply(row.text, name_of_wrong, seed))
            for row, name_of_wrong in zip(rows, wrong, strict=True)
        ]
        for name, transform in transforms.items()
    }
    memory.learn([row.text for found in changed.values() for row in found], progress)
    return {
        name: _compare(before, run_trials(router, found, progress, name), transforms[name].what)
        for name, found in changed.items()
    }


def _wrong_experts(trials: Trials, seed: int) -> list[str]:
    """For every row an expert that neither bears its label nor leads its answer."""
    wrong = []
    for row, lead in zip(trials.rows, trials.names(trials.lead), strict=True):
        others = [name for name in trials.experts if name != lead and name not in row.labels]
        place = int(hash_share(row.text, seed) * len(others))
        wrong.append(others[place] if others else trials.generalist)
    return wrong


def _compare(before: Trials, after: Trials, what: str) -> Flips:
    flipped = before.lead != after.lead
    shares, single = flipped.astype(np.float64), np.flatnonzero(before.single)
    domains = [before.domains[row] for row in single]
    leaders = zip(before.names(before.lead), after.names(after.lead), strict=True)
    examples = [
        (row.text, was, became)
        for row, (was, became), did in zip(after.rows, leaders, flipped.tolist(), strict=True)
        if did
    ]
    return Flips(
        what=what,
        rows=len(after.rows),
        flipped=mean_interval(shares, before.domains),
        single=mean_interval(shares[single], domains) if len(single) else None,
        by_domain=Macro(before.domains).by_stratum(shares),
        accuracy=float(after.right.mean()),
        examples=tuple(examples[:3]),
    )


def read_parallel(paths: Iterable[Path]) -> list[tuple[LabelledPrompt, str]]:
    """Return rows that translate an English row of one label, each with that label.

    Rows of JSON Lines are parallel where their `id`s differ only in the part that is the row's
    `lang`, as in `faq-en-7` and `faq-nl-7`. Rows without an `id` have no translations.
    """
    english: dict[str, str] = {}
    others: list[tuple[str, LabelledPrompt]] = []
    for path in paths:
        for line in path.read_text(encoding="utf-8").split("\n"):
            fields: dict[str, Any] = json.loads(line) if line.strip() else {}
            name, language = fields.get("id"), fields.get("lang")
            if not (isinstance(name, str) and isinstance(language, str)):
                continue
            key = name.replace(f"-{language}-", "-*-")
            row = labelled(fields, f"{path}: {name}")
            if language != "en":
                others.append((key, row))
            elif len(row.labels) == 1 and key != name:
                english[key] = row.labels[0]
    return [(row, english[key]) for key, row in others if key in english]


def measure_translation(
    router: Router,
    memory: EncoderMemory,
    parallel: Sequence[tuple[LabelledPrompt, str]],
    progress: Progress | None = None,
) -> Translation | None:
    """Return how often the English row's expert is among those chosen; None without rows."""
    if not parallel:
        return None
    rows = [row for row, _ in parallel]
    memory.learn([row.text for row in rows], progress)
    trials = run_trials(router, rows, progress, "translation")
    kept = np.array([trials.chose(n, label) for n, (_, label) in enumerate(parallel)], dtype=float)
    languages = [row.language for row in rows]
    groups = {
        language: float(kept[[name == language for name in languages]].mean())
        for language in sorted(set(languages))
    }
    return Translation(len(rows), mean_interval(kept, languages), groups)
