"""How often a way of routing finds the right one of many adapters, and what its errors cost.

The right adapter of an answer is the one under which its loss is least, where that is so beyond
noise (`benchmarks/decisive.py`). Rows on which the base beats every adapter have no right one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.decisive import (
    FEWEST_TOKENS,
    RATE,
    Flags,
    Floats,
    Indices,
    beyond_noise,
    hits,
    lead,
)

RATES = (0.05, 0.01, 0.001)
CHANCES = (0.05, 0.1, 0.2)
"""Of single verdicts, for runs with too few tokens to hold the rate over all of them."""
WORST = 12


@dataclass(frozen=True, eq=False)
class Bout:
    """n held-out answers under all experts, and what routers chose for their prompts.

    Columns follow `experts`; the base is one of them. `labels` [n] are the columns of the rows'
    sub-domains, `losses` the n tables [experts, tokens], None where they were not measured, and
    `choices` the columns [n] by router.
    """

    experts: tuple[str, ...]
    base: str
    labels: Indices
    losses: Sequence[Floats | None]
    choices: Mapping[str, Indices]

    @property
    def measured(self) -> Flags:
        """[n] on which rows the losses are known."""
        return np.asarray([tokens is not None for tokens in self.losses], dtype=np.bool_)

    @property
    def means(self) -> Floats:
        """[n, experts] mean losses, nats per token; NaN where they were not measured."""
        nothing = np.full(len(self.experts), np.nan)
        return np.stack([nothing if t is None else t.mean(axis=1) for t in self.losses])


@dataclass(frozen=True, eq=False)
class Verdicts:
    """Which rows have a right adapter: `counts` [n]; `best` [n] are the columns of the least loss,
    -1 where it is not known, and `chances` [n] how likely a lead as large is by chance, else 1."""

    best: Indices
    counts: Flags
    base_is_best: Flags
    chances: Floats


def judge(bout: Bout, rate: float = RATE) -> Verdicts:
    """Decide every row, with at most a share `rate` of the decided ones wrong in expectation."""
    leads = [lead(tokens) for tokens in bout.losses if tokens is not None]
    best, decided = np.full(len(bout.losses), -1), np.zeros(len(bout.losses), dtype=np.bool_)
    chances = np.ones(len(bout.losses))
    chances[bout.measured] = [found.chance for found in leads]
    best[bout.measured] = [found.best for found in leads]
    decided[bout.measured] = beyond_noise([found.chance for found in leads], rate)
    base = best == bout.experts.index(bout.base)
    return Verdicts(best, decided & ~base, decided & base, chances)


def figures(bout: Bout, router: str) -> dict[str, Any]:
    """Every figure, for JSON; `router` names the choices that the details are about."""
    verdicts = judge(bout)
    at = {rate: judge(bout, rate) for rate in RATES}
    right = {name: chosen == verdicts.best for name, chosen in bout.choices.items()}
    return {
        "rows": len(bout.labels),
        "measured": int(bout.measured.sum()),
        "rule": {"fewest_tokens": FEWEST_TOKENS, "false_verdicts": RATE},
        "counted": int(verdicts.counts.sum()),
        "base_is_best": int(verdicts.base_is_best.sum()),
        "right_adapter": {name: hits(found[verdicts.counts]) for name, found in right.items()},
        "by_false_verdicts": {
            f"{rate:g}": hits((bout.choices[router] == found.best)[found.counts])
            for rate, found in at.items()
        },
        "by_single_chance": {
            f"{chance:g}": hits(
                (bout.choices[router] == verdicts.best)[_alone(bout, verdicts, chance)]
            )
            for chance in CHANCES
        },
        "accuracy": {name: hits(chosen == bout.labels) for name, chosen in bout.choices.items()},
        "sub_domains": _by_sub_domain(bout, verdicts, router),
        "missed": _pairs(bout, verdicts.best, bout.choices[router], verdicts.counts),
        "mislabelled": _pairs(
            bout, bout.labels, bout.choices[router], np.ones(len(bout.labels), dtype=np.bool_)
        ),
    }


def _alone(bout: Bout, verdicts: Verdicts, chance: float) -> Flags:
    adapter = bout.measured & (verdicts.best != bout.experts.index(bout.base))
    found: Flags = adapter & (verdicts.chances <= chance)
    return found


def _by_sub_domain(bout: Bout, verdicts: Verdicts, router: str) -> dict[str, Any]:
    chosen, means, measured = bout.choices[router], bout.means, bout.measured
    regret = means[np.arange(len(chosen)), chosen] - means.min(axis=1)
    own = means[np.arange(len(chosen)), bout.labels]
    base = means[:, bout.experts.index(bout.base)]
    found = {}
    for column in np.unique(bout.labels).tolist():
        rows = bout.labels == column
        counted, known = rows & verdicts.counts, rows & measured
        found[bout.experts[column]] = {
            "rows": int(rows.sum()),
            "measured": int(known.sum()),
            "counted": int(counted.sum()),
            "right": int((chosen == verdicts.best)[counted].sum()),
            "own_is_best": int((bout.labels == verdicts.best)[counted].sum()),
            "accuracy": float((chosen == column)[rows].mean()),
            "regret": _mean(regret[known]),
            "loss_own": _mean(own[known]),
            "loss_base": _mean(base[known]),
        }
    return found


def _mean(values: Floats) -> float | None:
    return float(values.mean()) if len(values) else None


def _pairs(bout: Bout, wanted: Indices, chosen: Indices, rows: Flags) -> list[dict[str, Any]]:
    """The most frequent confusions, worst first."""
    wrong = rows & (wanted != chosen)
    counts = Counter(zip(wanted[wrong].tolist(), chosen[wrong].tolist(), strict=True))
    return [
        {"wanted": bout.experts[a], "chosen": bout.experts[b], "rows": count}
        for (a, b), count in counts.most_common(WORST)
    ]
