"""`collegium router`: versions of the router's gate, and which of them acts."""

from __future__ import annotations

from pathlib import Path

import click

from orchestrator.cli.config_option import config_option as _config
from orchestrator.cli.config_option import load_config as _load
from orchestrator.cli.console import out
from orchestrator.cli.learning import estimate, rows
from orchestrator.cli.registry import FOLLOWED as _FOLLOWED
from orchestrator.cli.registry import one_of as _one_of
from orchestrator.cli.registry import promote_version
from orchestrator.cli.registry import readable as _readable
from orchestrator.cli.registry import registry_of as _registry
from orchestrator.cli.registry import sign as _signature
from orchestrator.cli.registry import standards_of as _standards
from orchestrator.cli.registry import why_option as _why
from orchestrator.cli.router_experts import forget, teach
from orchestrator.cli.router_health import health
from orchestrator.cli.router_tables import (
    show_comparison,
    show_findings,
    show_history,
    show_list,
    show_version,
)

_off = click.option("--off", is_flag=True, help="End it.")


@click.group()
def router() -> None:
    """Versions of the router: add, compare on live traffic, promote, roll back.

    A running service follows without a restart. Version 0 is the gate that the configuration names.

    \b
    collegium router add my-gate --why "trained on May's questions"
    collegium router shadow 1            decides on live traffic, without acting
    collegium router compare             how often it agrees
    collegium router canary 1 --share 0.05
    collegium router promote 1
    collegium router rollback
    collegium router teach medical --prompts questions.txt
    collegium router health              nobody asks it, two are asked the same, drift
    """


@router.command("list")
@_config
def list_versions(path: Path | None) -> None:
    """Show every version with its role and the figures that `router.gates` asks for."""
    config = _load(path)
    with _readable():
        show_list(_registry(config), list(config.router.gates))


@router.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print manifest and report.")
@_config
def show(name: str, as_json: bool, path: Path | None) -> None:
    """Show a version: what it was made of, its report, and what promotion would find."""
    from orchestrator.registry import standards

    config = _load(path)
    with _readable():
        registry = _registry(config)
        show_version(registry, name, as_json=as_json)
        if not as_json and name != registry.lineup().current:
            out.print("\npromotion would find:")
            show_findings(registry.judge(name, standards(config)))


@router.command()
@click.option("--last", default=20, show_default=True, type=click.IntRange(min=1))
@_config
def history(last: int, path: Path | None) -> None:
    """Show the latest changes: when, who, what, and why."""
    with _readable():
        show_history(_registry(_load(path)).history()[-last:])


@router.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--name", help="a-z, 0-9, - and _; the next number unless given.")
@click.option(
    "--report",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="JSON with further figures; they go before those of training.",
)
@_why
@_config
def add(folder: Path, name: str | None, report: Path | None, why: str, path: Path | None) -> None:
    """Copy a gate that `collegium train router` wrote into the registry. It does not act yet."""
    with _readable():
        registry = _registry(_load(path))
        version = registry.add(folder, _signature(why), name=name, report=report)
    out.print(f"version {version.name} ({version.hash}) for {', '.join(version.labels)}")


@router.command()
@click.argument("name")
@click.option(
    "--force", is_flag=True, help="Promote in spite of broken gates; the reason (--why) is kept."
)
@_why
@_config
def promote(name: str, force: bool, why: str, path: Path | None) -> None:
    """Let a version act, unless its report breaks one of the gates.

    The gates are limits of figures (`router.gates` in the configuration), and that it knows the
    same experts as the version that acts. A gate that cannot be loaded is refused in any case.
    """
    if force and not why:
        raise click.UsageError("--force needs a reason: add --why TEXT.")
    config = _load(path)
    with _readable():
        promote_version(config, name, why, force=force)


@router.command()
@_why
@_config
def rollback(why: str, path: Path | None) -> None:
    """Let the previous version act again; a second rollback undoes the first. Nothing is judged."""
    with _readable():
        lineup = _registry(_load(path)).rollback(_signature(why))
    out.print(f"version {lineup.current} acts again, not {lineup.previous}. {_FOLLOWED}")


@router.command()
@click.argument("name", required=False)
@_off
@_why
@_config
def shadow(name: str | None, off: bool, why: str, path: Path | None) -> None:
    """Let a version decide on live traffic without acting; `compare` shows how often it agrees."""
    _one_of(name, off)
    with _readable():
        config = _load(path)
        _registry(config).shadow(name, _signature(why), _standards(config))
    out.print(f"version {name} watches. {_FOLLOWED}" if name else "no version watches.")


@router.command()
@click.argument("name", required=False)
@click.option(
    "--share",
    default=0.05,
    show_default=True,
    type=click.FloatRange(0, 1, min_open=True),
    help="Of the traffic; a session stays with one version.",
)
@_off
@_why
@_config
def canary(name: str | None, share: float, off: bool, why: str, path: Path | None) -> None:
    """Let a version act for a share of the traffic. A larger share keeps those it had."""
    _one_of(name, off)
    with _readable():
        config = _load(path)
        _registry(config).canary(name, share, _signature(why), _standards(config))
    acts = f"version {name} acts for {share:.1%} of the traffic. {_FOLLOWED}"
    out.print(acts if name else "no version is a canary.")


@router.command()
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True)
@_config
def compare(name: str | None, as_json: bool, path: Path | None) -> None:
    """Show how a version decided beside the one that acts, on the same requests of live traffic.

    NAME is the shadow's, or the canary's where there is no shadow. Intervals hold in 95 of 100
    cases (Wilson's for shares). Requests with weights of the caller's own do not count.
    """
    with _readable():
        registry = _registry(_load(path))
        lineup = registry.lineup()
        chosen = name or lineup.shadow or lineup.canary
        if chosen is None:
            raise click.ClickException(
                "no version is shadow or canary: begin with `collegium router shadow NAME`."
            )
        show_comparison(registry, lineup.current, chosen, as_json=as_json)


@router.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_why
@_config
def remove(name: str, yes: bool, why: str, path: Path | None) -> None:
    """Delete a version that is neither current nor previous, shadow or canary."""
    if not yes:
        click.confirm(f"Remove version {name}?", abort=True)
    with _readable():
        _registry(_load(path)).remove(name, _signature(why))
    out.print(f"removed version {name}", markup=False)


for _command in (teach, forget, health, rows, estimate):
    router.add_command(_command)
