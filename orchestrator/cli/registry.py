"""What the commands of `collegium router` begin with: configuration, registry, signature."""

from __future__ import annotations

import getpass
import os
import socket
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import click

from orchestrator.cli.console import err, out, readable_errors
from orchestrator.cli.router_tables import show_findings

if TYPE_CHECKING:
    from orchestrator.config import Config
    from router.standards import Standards
    from router.version import Signature
    from router.versions import Registry

FOLLOWED = "Running services follow within seconds."

why_option = click.option("--why", default="", help="Goes into the history.")


def readable() -> AbstractContextManager[None]:
    """Show what the registry and the files say against a command as one message."""
    from router.lineup import VersionError

    return readable_errors(VersionError, OSError)


def registry_of(config: Config) -> Registry:
    """The registry of a configuration."""
    from orchestrator.registry import open_registry

    return open_registry(config)


def one_of(name: str | None, off: bool) -> None:
    """Refuse a command that gives both a version and its end, or neither."""
    if (name is None) != off:
        raise click.UsageError("give the name of a version, or --off.")


def sign(why: str) -> Signature:
    """Who runs this command, and why."""
    from router.version import Signature

    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        # Containers run under numbers without names.
        user = f"uid {os.getuid()}"
        err.print(f"signed as {user}: this user has no name here")
    return Signature(f"{user}@{socket.gethostname()}", why)


def standards_of(config: Config) -> Standards:
    """What a version is judged by before it may act."""
    from orchestrator.registry import standards

    return standards(config)


def promote_version(config: Config, name: str, why: str, *, force: bool = False) -> None:
    """Let a version act, and show what its report was asked."""
    from router.versions import Refused

    try:
        given = name, sign(why), standards_of(config)
        found = registry_of(config).promote(*given, force=force)
    except Refused as error:
        show_findings(error.findings)
        hint = f"`collegium router promote {name} --force --why TEXT` promotes it all the same."
        raise click.ClickException(f"{error}\n{hint}") from error
    show_findings(found)
    out.print(f"version {name} acts. {FOLLOWED}")
