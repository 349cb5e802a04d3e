"""`collegium cache`: look at the file of kept answers, and clear it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import click

from orchestrator.cli.config_option import config_option, load_config
from orchestrator.cli.console import out, readable_errors


@click.group()
def cache() -> None:
    """The answers that a service on this machine keeps.

    \b
    collegium cache show
    collegium cache clear --tenant default
    """


@cache.command()
@config_option
def show(path: Path | None) -> None:
    """Tell how many answers there are, and their size."""
    from orchestrator.answer_store import answers_file, open_answers

    config = load_config(path).cache
    with readable_errors(OSError, sqlite3.Error):
        answers, size = open_answers(config).size() if answers_file(config).exists() else (0, 0)
    out.print(f"{answers_file(config)}: {answers} answers, {size} bytes", soft_wrap=True)


@cache.command()
@config_option
@click.option("--tenant", help="Whose answers are removed.")
@click.option("--all", "everybody", is_flag=True, help="Remove those of all tenants.")
def clear(path: Path | None, tenant: str | None, everybody: bool) -> None:
    """Remove the answers of a tenant, or all of them; no service gives them again."""
    from orchestrator.answer_store import answers_file, open_answers

    if (tenant is None) is not everybody:
        raise click.UsageError("Give either --tenant NAME or --all.")
    config = load_config(path).cache
    with readable_errors(OSError, sqlite3.Error):
        gone = open_answers(config).clear(tenant) if answers_file(config).exists() else 0
    out.print(f"{gone} answers removed")
