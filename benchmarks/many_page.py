"""The report of `benchmarks.many_experts` in words: a page, and sections for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.markup import escape

from benchmarks.measure import Spread
from benchmarks.report import Goal, Row, Section
from router.stakes import BY_LABEL, ROUTER

GOAL = Goal(0.985, at_most=False)

Found = Mapping[str, Any]


def sections(found: Found) -> list[Section]:
    """The figures that matter, with the goal."""
    right = found["right_adapter"]
    rows = [_share(f"right adapter, {name}", right[name], name == ROUTER) for name in right]
    rows += [_share(f"label's adapter, {name}", one) for name, one in _choosers(found["accuracy"])]
    regret = found["regret"]
    ratios = {"best single": regret["over_best_single"], **regret["over_peers"]}
    rows += [
        Row(
            f"regret ÷ {name}'s",
            Spread(ratio["value"], ratio["low"], ratio["high"], regret["rows"]),
        )
        for name, ratio in ratios.items()
        if ratio is not None
    ]
    notes = [_counting(found), *found["notes"]]
    return [Section("many_experts", rows, [escape(note) for note in notes])]


def _share(measure: str, hits: Found, has_goal: bool = False) -> Row:
    value = Spread(hits["value"], hits["low"], hits["high"], hits["rows"])
    detail = f"{hits['hits']} of {hits['rows']}"
    return Row(measure, value, GOAL if has_goal else None, unit="", detail=detail)


def _choosers(figures: Found) -> list[tuple[str, Any]]:
    return [(name, one) for name, one in figures.items() if name != BY_LABEL]


def _counting(found: Found) -> str:
    rule = found["rule"]
    return (
        f"{found['counted']} of {found['measured']} held-out rows have an adapter that is better "
        f"than all others and the base beyond noise of their tokens (at most "
        f"{rule['false_verdicts']:g} of the verdicts false); on "
        f"{found['base_is_best']} it is the base."
    )


def page(found: Found) -> str:
    """The report in Markdown."""
    parts = [
        f"# The right one of {len(found['dealt'])} adapters",
        _counting(found),
        *found["notes"],
        "## Right adapter\n\n" + _rights(found),
        "## Regret\n\nNats per answer token above the best expert, base included; means over "
        "sub-domains.\n\n" + _regrets(found["regret"]),
        "## Sub-domains\n\n" + _sub_domains(found),
        "## Confusions\n\nOn rows that count, the best adapter and the router's choice:\n\n"
        + _confusions(found["missed"])
        + "\n\nOn all rows, the label and the router's choice:\n\n"
        + _confusions(found["mislabelled"]),
        "## How\n\n" + _how(found),
    ]
    return "\n\n".join(parts) + "\n"


def _rights(found: Found) -> str:
    head = ("chosen by", "right adapter", "95 % interval", "label's adapter, all rows")
    accuracy = found["accuracy"]
    lines = [
        (name, _of(one), _interval(one), "" if name == BY_LABEL else _of(accuracy[name]))
        for name, one in found["right_adapter"].items()
    ]
    other = [
        (f"at most {rate} of the verdicts false", _of(one), _interval(one))
        for rate, one in found["by_false_verdicts"].items()
    ]
    other += [
        (f"none over all; of each row p ≤ {chance}", _of(one), _interval(one))
        for chance, one in found["by_single_chance"].items()
    ]
    margin = found["regret"]["decisive"]
    if margin is not None:
        one = {"hits": round(margin["accuracy"]["value"] * margin["rows"]), "rows": margin["rows"]}
        words = f"none, but the best leads by {margin['margin']:g} nats a token"
        other.append((words, _of({**one, **margin["accuracy"]}), _interval(margin["accuracy"])))
    return (
        _table(head, lines)
        + "\n\nThe router's by how strict the rule is:\n\n"
        + _table(("rule", "right adapter", "95 % interval"), other)
    )


def _regrets(regret: Found) -> str:
    lines = [
        (
            name,
            f"{one['macro']['value']:.4f}",
            _interval(one["macro"], 4),
            "" if one["over_best_single"] is None else f"{one['over_best_single']['value']:.3f}",
            "yes" if regret["beats"].get(name) else "",
        )
        for name, one in regret["routers"].items()
    ]
    head = ("way of routing", "regret", "95 % interval", "÷ best single's", "router is better")
    return _table(head, lines) + f"\n\nThe best single expert is `{regret['best_single']}`."


def _sub_domains(found: Found) -> str:
    head = (
        "sub-domain", "rows for its adapter", "tokens", "for the gate", "held out", "loss, base",
        "loss, own", "count", "right", "own is best", "label's adapter", "regret",
    )  # fmt: skip
    lines = []
    for name, one in found["sub_domains"].items():
        dealt = found["dealt"][name]
        counts = [dealt[key] for key in ("adapter", "tokens", "gate", "held_out")]
        losses = [_number(one[key], 3) for key in ("loss_base", "loss_own")]
        shares = [_number(one["accuracy"], 3), _number(one["regret"], 4)]
        rights = [one[key] for key in ("counted", "right", "own_is_best")]
        lines.append((name, *counts, *losses, *rights, *shares))
    note = (
        "Losses in nats per token of the held-out answers' first tokens, means over rows. `count`: "
        "rows that have a right adapter; of these `right`: the router chose it, and `own is best`: "
        "it is the sub-domain's."
    )
    return f"{_table(head, lines)}\n\n{note}"


def _confusions(pairs: Sequence[Found]) -> str:
    lines = [(pair["wanted"], pair["chosen"], pair["rows"]) for pair in pairs]
    return _table(("wanted", "chosen", "rows"), lines) if lines else "None."


def _how(found: Found) -> str:
    settings, machine = found["settings"], found["circumstances"]
    adapters = found["adapters"].values()
    minutes = sum(one["seconds_in_all"] for one in adapters) / 60
    tokens = sum(one["tokens"] for one in adapters)
    left = ", ".join(f"{name} ({rows} rows)" for name, rows in found["left_out"].items())
    lines = {
        "base": settings["base"],
        "adapters": f"rank {settings['training']['rank']}, upper half of the layers, {tokens:,} "
        f"tokens of prompts and answers in all, {minutes:.1f} minutes",
        "measured": f"the first {settings['answer_tokens']} tokens of each answer; "
        f"{found['measured']} of {found['rows']} held-out rows",
        "gate": f"version {found['gate']['version']}, {found['gate']['rows']} prompts, "
        f"{found['gate']['rows_with_losses']} of them with losses",
        "seed": settings["limits"]["seed"],
        "left out": left or "nothing",
        "machine": f"{machine['cpu']}, {machine['threads']} threads, commit {machine['commit']}",
    }
    return _table(("", ""), lines.items())


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _of(hits: Found) -> str:
    return f"{hits['value']:.4f} ({hits['hits']} of {hits['rows']})"


def _interval(one: Found, digits: int = 3) -> str:
    return f"{one['low']:.{digits}f} – {one['high']:.{digits}f}"


def _table(head: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    rows = [f"| {' | '.join(str(cell) for cell in line)} |" for line in (head, *lines)]
    return "\n".join([rows[0], "|---" * len(head) + "|", *rows[1:]])
