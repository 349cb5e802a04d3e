"""`collegium router teach` and `forget`: experts come and go without training the rest anew."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import click
from rich.table import Column, Table
from rich.text import Text

from orchestrator.cli.config_option import config_option, load_config
from orchestrator.cli.console import err, out, readable_errors
from orchestrator.cli.registry import promote_version, readable, registry_of, sign, why_option

if TYPE_CHECKING:
    from orchestrator.config import Config
    from router.gate import Gate
    from router.teaching import Lesson
    from router.version import Version

_FEW = 0.9
"""Of its own prompts an expert should get at least so many."""

_File = click.Path(exists=True, dir_okay=False, path_type=Path)
_from = click.option("--from", "base", help="Version to begin with; default: the one that acts.")
_promote = click.option("--promote", "promoted", is_flag=True, help="Let the new version act.")


@click.command()
@click.argument("name")
@click.option(
    "--prompts", required=True, type=_File, help="JSON Lines with `prompt`, or one prompt a line."
)
@click.option(
    "--share",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Of the traffic that it is taken to get; default: as much as any trained expert. More "
    "lets more of its prompts reach it, and more of others'.",
)
@_from
@_promote
@click.option("--json", "as_json", is_flag=True, help="Print what it did as JSON.")
@why_option
@config_option
def teach(
    name: str,
    prompts: Path,
    share: float | None,
    base: str | None,
    promoted: bool,
    as_json: bool,
    why: str,
    path: Path | None,
) -> None:
    """Teach the router the expert NAME from 20 to 50 prompts, as a new version.

    Nothing else is trained: what the expert gets, it takes from all others in proportion. Shown is
    how many of its prompts reach it when each is left out once, and what it takes from whom. The
    version does not act before it is promoted.

    \b
    collegium router teach medical --prompts questions.txt
    """
    from orchestrator.replicas import open_encoder
    from router.dataset import DatasetError
    from router.gate import GateError
    from router.prototypes import PrototypeError
    from router.teaching import example_features, read_examples
    from router.teaching import teach as teach_gate

    config = load_config(path)
    with readable(), readable_errors(DatasetError, GateError, PrototypeError):
        version = _version(config, base)
        gate = version.gate()
        gate.known_background()
        texts = read_examples(prompts)
        features = example_features(texts, open_encoder(config, threads=2).encode)
        taught, lesson = teach_gate(gate, name, features, share)
        reason = why or f"taught {name} from {len(texts)} prompts, beginning with {version.name}"
        added = _add(config, taught, version, reason)
        _show_lesson(lesson, as_json=as_json)
        _warn(lesson, config)
        _finish(config, added, why=reason, promoted=promoted, quiet=as_json)


@click.command()
@click.argument("name")
@_from
@_promote
@why_option
@config_option
def forget(name: str, base: str | None, promoted: bool, why: str, path: Path | None) -> None:
    """Make a version of the router without the expert NAME.

    What a taught expert got goes back to the others, exactly as before it was taught; what a
    trained one got goes to the generalist.
    """
    from router.gate import GateError
    from router.teaching import forget as forget_label

    config = load_config(path)
    with readable(), readable_errors(GateError):
        version = _version(config, base)
        left = forget_label(version.gate(), name, config.generalist)
        reason = why or f"forgot {name}, beginning with {version.name}"
        added = _add(config, left, version, reason)
        _finish(config, added, why=reason, promoted=promoted)


def _version(config: Config, base: str | None) -> Version:
    registry = registry_of(config)
    return registry.version(base or registry.lineup().current)


def _add(config: Config, gate: Gate, base: Version, why: str) -> Version:
    from router.card import write_derived_card

    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        gate.save(folder)
        write_derived_card(gate, base.folder, folder)
        return registry_of(config).add(folder, sign(why))


def _finish(
    config: Config, added: Version, *, why: str, promoted: bool, quiet: bool = False
) -> None:
    if not quiet:
        out.print(f"version {added.name} ({added.hash}) for {', '.join(added.labels)}")
    if promoted:
        promote_version(config, added.name, why)
    elif not quiet:
        out.print(f"It does not act: `collegium router promote {added.name}` lets it.")


def _show_lesson(lesson: Lesson, *, as_json: bool) -> None:
    if as_json:
        out.print_json(data=lesson.metadata())
        return
    recall, taken = lesson.recall, lesson.taken
    rows = {
        "its prompts that reach it, each left out once": (
            f"{recall.value:.1%} [{recall.low:.1%}, {recall.high:.1%}] of {lesson.examples}"
        ),
        "who gets them without it": _shares(lesson.before),
        "background that is of its kind": f"{lesson.alike:.2%}",
        "background that it takes": f"{lesson.moved:.2%}",
        "of what was each one's": _shares(taken) if taken else "nothing",
        "accuracy on the background": f"{lesson.accuracy[0]:.4f} → {lesson.accuracy[1]:.4f}",
        "calibration error": f"{lesson.ece[0]:.4f} → {lesson.ece[1]:.4f}",
        "nearest expert": f"{lesson.nearest}, cosine {lesson.cosine:.2f}",
    }
    table = Table(Column(Text(lesson.name)), "")
    for what, value in rows.items():
        table.add_row(what, Text(value))
    out.print(table)


def _shares(shares: Mapping[str, float]) -> str:
    ranked = sorted(shares.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {share:.1%}" for name, share in ranked)


def _warn(lesson: Lesson, config: Config) -> None:
    warnings = []
    if lesson.name not in config.experts:
        warnings.append(
            f"the configuration has no expert {lesson.name}: until it has, what it gets goes to "
            f"{config.generalist}, and the version is not promoted"
        )
    if lesson.twin:
        warnings.append(
            f"{lesson.name} is a twin of {lesson.nearest} (cosine {lesson.cosine:.2f}): the two "
            "will take each other's prompts"
        )
    if lesson.recall.value < _FEW:
        warnings.append(
            f"{1 - lesson.recall.value:.0%} of its prompts do not reach it: give more of them, and "
            "such as are asked"
        )
    for words in warnings:
        err.print(Text(f"warning: {words}.", style="yellow"), soft_wrap=True)
