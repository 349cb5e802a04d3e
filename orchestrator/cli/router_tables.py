"""What `collegium router` prints."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table
from rich.text import Text

from orchestrator.cli.console import out

if TYPE_CHECKING:
    from router.bars import Finding
    from router.comparison import Agreement, Estimate
    from router.lineup import Change
    from router.versions import Registry


def show_list(registry: Registry, metrics: Sequence[str]) -> None:
    """Every version, broken ones with what is wrong."""
    from router.bars import figure
    from router.lineup import VersionError

    lineup = registry.lineup()
    table = Table("version", "hash", "role", *metrics, "labels", "added", "by")
    for name in registry.names():
        role = ", ".join(lineup.roles(name))
        if name == lineup.canary:
            role = role.replace("canary", f"canary {lineup.share:.1%}")
        try:
            version = registry.version(name)
        except VersionError as error:
            table.add_row(name, Text(f"broken: {error}", style="red"), role)
            continue
        found = (figure(version.report, metric) for metric in metrics)
        figures = ["-" if value is None else f"{value:.4f}" for value in found]
        labels = Text(_shortened(version.labels))
        table.add_row(name, version.hash, role, *figures, labels, version.added, Text(version.by))
    out.print(table)


def show_version(registry: Registry, name: str, *, as_json: bool) -> None:
    """A version's manifest and the numbers of its report."""
    version = registry.version(name)
    facts = {
        "version": version.name,
        "hash": version.hash,
        "role": ", ".join(registry.lineup().roles(name)) or "none",
        "labels": ", ".join(version.labels),
        "encoder": f"{version.encoder or 'not named'}, {version.dimensions} numbers",
        "training data": version.data or "not told",
        "added": f"{version.added} by {version.by}".strip(),
        "why": version.why,
        "folder": str(version.folder),
    }
    if as_json:
        out.print_json(json.dumps(asdict(version), default=str))
        return
    for key, value in facts.items():
        out.print(f"{key:14} {value}", markup=False, highlight=False, soft_wrap=True)
    table = Table("figure", "value")
    for metric, number in _numbers(version.report):
        table.add_row(Text(metric), f"{number:g}")
    out.print(table)


def show_findings(findings: Sequence[Finding]) -> None:
    """What each bar found."""
    for found in findings:
        mark, style = ("kept  ", "green") if found.kept else ("broken", "red")
        out.print(Text.assemble((mark, style), f"  {found.words}"), soft_wrap=True)


def show_history(changes: Sequence[Change]) -> None:
    """Changes, oldest first."""
    table = Table("", "when", "who", "what", "from", "to", "why")
    for change in changes:
        words = (change.by, change.action, change.before, change.after, change.why)
        table.add_row(str(change.serial), change.at, *(Text(word) for word in words))
    out.print(table)


def show_comparison(registry: Registry, current: str, other: str, *, as_json: bool) -> None:
    """How two versions agreed, over all requests and by the current version's lead.

    Raises a `ClickException` where no request was seen by both.
    """
    from router.comparison import agreement, by_expert
    from router.comparison_log import LOG_FOLDER, read_pairs

    hashes = registry.version(current).hash, registry.version(other).hash
    logged = read_pairs(registry.folder / LOG_FOLDER)
    pairs = [found for found in logged if (found.current, found.other) == hashes]
    if not pairs:
        raise click.ClickException(
            f"no request was decided by both version {current} and version {other} yet."
        )
    rows = {"all": agreement(pairs), **by_expert(pairs)}
    if as_json:
        text = json.dumps({name: asdict(row) for name, row in rows.items()})
        # One request alone bounds no mean; JSON has no word for infinity.
        out.print_json(data=json.loads(text, parse_constant=lambda _: None))
        return
    out.print(f"version {other} beside version {current}, which acts: {len(pairs)} requests")
    table = Table("lead", "requests", "same lead", "same experts", "KL, nats", "led instead by")
    for name, row in rows.items():
        table.add_row(Text(name), str(row.pairs), *_cells(row))
    out.print(table)


def _cells(row: Agreement) -> list[str | Text]:
    moved = ", ".join(f"{name} {count}" for name, count in row.moved.items())
    divergence = row.divergence
    nats = f"{divergence.value:.4f} [{divergence.low:.4f}, {divergence.high:.4f}]"
    return [_share(row.same_lead), _share(row.same_set), Text(nats), Text(moved)]


def _share(found: Estimate) -> Text:
    return Text(f"{found.value:.2%} [{found.low:.2%}, {found.high:.2%}]")


def _numbers(report: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, float]]:
    for key, value in report.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{above}{key}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{above}{key}", float(value)


def _shortened(labels: Sequence[str]) -> str:
    shown = ", ".join(labels[:6])
    return shown if len(labels) <= 6 else f"{shown} and {len(labels) - 6} more"
