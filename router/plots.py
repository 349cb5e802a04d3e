"""Plots of a router's figures, as SVG files. Needs matplotlib, which `collegium[eval]` installs."""

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

Figures = Mapping[str, Any]
Plot = Callable[[Any, Figures], bool]


def can_plot() -> bool:
    """Tell whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def draw(found: Figures, folder: Path, plots: Mapping[str, Plot] | None = None) -> tuple[str, ...]:
    """Draw what the figures hold into the folder and return the file names.

    `plots` are those of a router unless given. One draws into axes, and says whether there was
    anything to draw.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    names = []
    for name, plot in (_PLOTS if plots is None else plots).items():
        figure = Figure(figsize=(6.4, 4.4), layout="constrained")
        # Without a date and with a fixed salt the same figures make the same file.
        with rc_context({"svg.hashsalt": name}):
            if plot(figure.subplots(), found):
                figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
                names.append(f"{name}.svg")
    return tuple(names)


def _reliability(axes: Any, found: Figures) -> bool:  # noqa: ANN401
    bins = found["calibration"]["bins"]
    axes.plot([0, 1], [0, 1], color="0.7", linestyle="--", label="perfect")
    axes.plot([b["confidence"] for b in bins], [b["right"] for b in bins], "o-", label="router")
    axes.set(xlabel="confidence", ylabel="share right", xlim=(0, 1), ylim=(0, 1))
    axes.set_title(f"Reliability, expected calibration error {found['calibration']['ece']:.4f}")
    axes.legend()
    return True


def _risk(axes: Any, found: Figures) -> bool:  # noqa: ANN401
    wrong = found["risk_coverage"]
    axes.plot(wrong["coverage"], wrong["risk"], label="wrong expert")
    if found["regret"] is not None:
        costly = found["regret"]["risk_coverage"]
        label = f"regret above {found['regret']['epsilon']:g} nats"
        axes.plot(costly["coverage"], costly["risk"], label=label)
    axes.set(xlabel="share of prompts routed", ylabel="risk among them", xlim=(0, 1))
    axes.set_ylim(bottom=0)
    axes.set_title("Risk and coverage")
    axes.legend()
    return True


def _confusion(axes: Any, found: Figures) -> bool:  # noqa: ANN401
    counts = found["confusion"]
    names = list(counts)
    if not names:
        return False
    rows = [[counts[true][name] for name in names] for true in names]
    shares = [[count / max(1, sum(row)) for count in row] for row in rows]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="most probable", ylabel="label", title="Confusion")
    if len(names) <= 12:
        for y, row in enumerate(rows):
            for x, count in enumerate(row):
                color = "white" if shares[y][x] > 0.5 else "black"
                axes.text(x, y, str(count), ha="center", va="center", color=color)
    return True


def _regret(axes: Any, found: Figures) -> bool:  # noqa: ANN401
    if found["regret"] is None:
        return False
    routers = found["regret"]["routers"]
    _bars(axes, {name: one["macro"] for name, one in routers.items()})
    axes.set(xlabel="regret, nats per token (mean over domains)", title="Regret")
    return True


def _flips(axes: Any, found: Figures) -> bool:  # noqa: ANN401
    if found["robustness"] is None:
        return False
    _bars(axes, {name: one["flipped"] for name, one in found["robustness"].items()})
    axes.set(xlabel="share of decisions flipped", title="Robustness")
    return True


def _ablation(axes: Any, found: Figures) -> bool:  # noqa: ANN401
    parts = {k: v for k, v in (found.get("ablation") or {}).items() if k != "whole"}
    if not parts:
        return False
    names = list(parts)[::-1]
    changes = [parts[name]["accuracy"]["change"] for name in names]
    values = [change["value"] for change in changes]
    low = [max(0.0, change["value"] - change["low"]) for change in changes]
    high = [max(0.0, change["high"] - change["value"]) for change in changes]
    axes.barh(names, values, xerr=[low, high], capsize=3, color="tab:blue", ecolor="0.3")
    axes.axvline(0.0, color="0.7")
    axes.set(xlabel="change of accuracy without it", title="Ablation")
    return True


def _bars(axes: Any, intervals: Figures) -> None:  # noqa: ANN401
    names = list(intervals)[::-1]
    values = [intervals[name]["value"] for name in names]
    low = [max(0.0, intervals[name]["value"] - intervals[name]["low"]) for name in names]
    high = [max(0.0, intervals[name]["high"] - intervals[name]["value"]) for name in names]
    axes.barh(names, values, xerr=[low, high], capsize=3, color="tab:blue", ecolor="0.3")
    axes.set_xlim(left=0)


_PLOTS: Mapping[str, Plot] = {
    "reliability": _reliability,
    "risk": _risk,
    "confusion": _confusion,
    "regret": _regret,
    "robustness": _flips,
    "ablation": _ablation,
}
