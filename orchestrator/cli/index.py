"""`collegium index`: the collections that answers are grounded in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.cli.console import out, progress_bar, readable_errors

if TYPE_CHECKING:
    from retrieval.index import Index

_config = click.option(
    "--config",
    "config_path",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Configuration with the collections' folder and encoder.",
)


@click.group()
def index() -> None:
    """Collections of documents: add, list, search, remove. A running service follows changes."""


@index.command()
@click.argument("path", type=click.Path(exists=True, path_type=Path))
@click.option("--collection", required=True, help="Made if it is not there: a-z, 0-9, - and _.")
@click.option("--base-url", default="", help="Put before each file's path to make its address.")
@_config
def add(path: Path, collection: str, base_url: str, config_path: Path | None) -> None:
    """Add a text, Markdown or JSON Lines file, or a folder of them.

    Documents that did not change are skipped; an interrupted run goes on where it stopped.
    """
    from retrieval.errors import RetrievalError
    from retrieval.sources import read_documents

    with readable_errors(RetrievalError), progress_bar() as bar:
        documents = list(read_documents(path, base_url))
        label = f"index {collection}"
        bar(label, 0, len(documents))
        written = _open(config_path).add(
            collection, documents, lambda done: bar(label, done, len(documents))
        )
    out.print(f"{collection}: {written} of {len(documents)} documents written")


@index.command()
@_config
def build(config_path: Path | None) -> None:
    """Build the embedded collections, as `collegium serve` does on its first start."""
    from experts.store import ModelError
    from orchestrator.config import Config, ConfigError
    from orchestrator.embedded import fill_collections
    from retrieval.errors import RetrievalError

    with readable_errors(ConfigError, ModelError, RetrievalError), progress_bar() as bar:
        fill_collections(Config.load(config_path), bar)


@index.command("list")
@_config
def list_collections(config_path: Path | None) -> None:
    """Show every collection with its size."""
    from rich.table import Table

    from retrieval.errors import RetrievalError

    table = Table("collection", "documents", "passages", "KiB")
    with readable_errors(RetrievalError):
        for info in _open(config_path).list():
            sizes = (info.documents, info.passages, info.bytes >> 10)
            table.add_row(info.name, *(str(size) for size in sizes))
    out.print(table)


@index.command()
@click.argument("query")
@click.option("--collection", "collections", multiple=True, help="Default: all.")
@click.option("--top", default=5, show_default=True, type=click.IntRange(1, 100))
@_config
def search(query: str, collections: tuple[str, ...], top: int, config_path: Path | None) -> None:
    """Search as the service does, with both scores of every passage."""
    from rich.table import Table
    from rich.text import Text

    from retrieval.errors import RetrievalError

    table = Table("score", "cosine", "bm25", "collection", "title", "passage")
    with readable_errors(RetrievalError):
        opened = _open(config_path)
        names = collections or tuple(info.name for info in opened.list())
        for p in opened.search(query, None, names, top):
            text = " ".join(p.text.split())[:200]
            scores = (f"{p.score:.3f}", f"{p.similarity:.3f}", f"{p.bm25:.2f}")
            # Bare strings would be read as markup, and documents hold brackets.
            table.add_row(*scores, p.collection, Text(p.title), Text(text))
    out.print(table)


@index.command()
@click.argument("collection")
@click.option("--document", help="Only this document.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_config
def rm(collection: str, document: str | None, yes: bool, config_path: Path | None) -> None:
    """Remove a collection, or one document of it."""
    from retrieval.errors import RetrievalError

    what = f"document {document} of {collection}" if document else f"collection {collection}"
    if not yes:
        click.confirm(f"Remove {what}?", abort=True)
    with readable_errors(RetrievalError):
        _open(config_path).remove(collection, document)
    out.print(f"removed {what}", markup=False)


def _open(config_path: Path | None) -> Index:
    from experts.store import ModelError
    from orchestrator.config import Config, ConfigError
    from orchestrator.replicas import collections_folder, open_encoder
    from retrieval.index import Index

    with readable_errors(ConfigError, ModelError):
        config = Config.load(config_path)
        encoder = open_encoder(config, threads=2)
    return Index(collections_folder(config), encoder.encode)
