"""Plots of how good search and its answers are, as SVG files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from router.plots import Figures, Plot

_COLORS = {
    "words": "tab:orange",
    "meaning": "tab:green",
    "fused": "tab:blue",
    "tuned": "tab:purple",
}
_HEIGHT = 0.8


def _gain(axes: Any, found: Figures) -> bool:  # noqa: ANN401
    cells = [
        (f"{name}, {group}", figures["ways"])
        for name, one in found["collections"].items()
        for group, figures in one["groups"].items()
    ][::-1]
    ways = list(dict.fromkeys(way for _, figures in cells for way in figures))
    thick = _HEIGHT / max(1, len(ways))
    for place, way in enumerate(ways):
        rows = [
            (at, figures[way]["ndcg@10"]) for at, (_, figures) in enumerate(cells) if way in figures
        ]
        axes.barh(
            [at + _HEIGHT / 2 - (place + 0.5) * thick for at, _ in rows],
            [one["value"] for _, one in rows],
            xerr=[
                [max(0.0, one["value"] - one["low"]) for _, one in rows],
                [max(0.0, one["high"] - one["value"]) for _, one in rows],
            ],
            height=thick,
            label=way,
            color=_COLORS[way],
            error_kw={"elinewidth": 0.6},
        )
    axes.set_yticks(range(len(cells)), [name for name, _ in cells], fontsize=7)
    axes.set(xlabel="nDCG@10", title="Words, meaning, and both", xlim=(0, 1))
    axes.legend(fontsize=7)
    return bool(cells)


def _weights(axes: Any, found: Figures) -> bool:  # noqa: ANN401
    tuned = {name: one for name, one in found["collections"].items() if one["curve"]}
    for name, one in tuned.items():
        weights, values = zip(*one["curve"], strict=True)
        axes.plot(weights, values, label=f"{name} ({one['weight']:g})")
    if tuned:
        axes.set(xlabel="weight of meaning", ylabel="nDCG@10 on the tuning half", title="Tuning")
        axes.legend(fontsize=7)
    return bool(tuned)


def _answers(axes: Any, found: Figures) -> bool:  # noqa: ANN401
    cells = [
        (name if len(one["groups"]) == 1 else f"{name}, {group}", figures["f1"])
        for name, one in (found["answers"] or {}).items()
        for group, figures in one["groups"].items()
    ][::-1]
    for place, way in enumerate(("closed", "grounded")):
        values = [f1[way] for _, f1 in cells]
        axes.barh(
            [at + 0.2 - 0.4 * place for at in range(len(cells))],
            [one["value"] for one in values],
            xerr=[
                [max(0.0, one["value"] - one["low"]) for one in values],
                [max(0.0, one["high"] - one["value"]) for one in values],
            ],
            height=0.4,
            label={"closed": "closed-book", "grounded": "from the sources"}[way],
        )
    axes.set_yticks(range(len(cells)), [name for name, _ in cells])
    axes.set(xlabel="F1 of the answer", title="What sources do for answers")
    if cells:
        axes.legend()
    return bool(cells)


PLOTS: Mapping[str, Plot] = {"search": _gain, "weights": _weights, "answers": _answers}
"""By the name of the file."""
