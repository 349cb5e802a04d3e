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
    from orchestrator.replicas import open_encoder, open_index
    from retrieval.errors import RetrievalError

    with readable_errors(ConfigError, ModelError, RetrievalError):
        config = Config.load(config_path)
        return open_index(config, open_encoder(config, threads=2))
