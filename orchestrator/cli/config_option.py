"""The option `--config` of commands that work with a service's configuration."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.cli.console import readable_errors

if TYPE_CHECKING:
    from orchestrator.config import Config

config_option = click.option(
    "--config",
    "path",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Configuration of the service: its folders, gates and experts.",
)


def load_config(path: Path | None) -> Config:
    """The configuration in a file, or the embedded default; faults end the command in words."""
    from orchestrator.config import Config, ConfigError

    with readable_errors(ConfigError):
        return Config.load(path)
