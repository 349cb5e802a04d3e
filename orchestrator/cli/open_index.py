"""The collections of a configuration, opened for a command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.cli.console import readable_errors

if TYPE_CHECKING:
    from retrieval.index import Index

collections_option = click.option(
    "--config",
    "config_path",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Configuration with the collections' folder and encoder.",
)


def open_index(config_path: Path | None) -> Index:
    """The index of a configuration file, or of the embedded default; faults end the command."""
    from experts.store import ModelError
    from orchestrator.config import Config, ConfigError
    from orchestrator.replicas import collections_folder, open_encoder
    from retrieval.index import Index

    with readable_errors(ConfigError, ModelError):
        config = Config.load(config_path)
        encoder = open_encoder(config, threads=2)
    return Index(collections_folder(config), encoder.encode)
