"""`collegium index`: the collections that answers are grounded in."""

from __future__ import annotations

import json
from pathlib import Path

import click

from orchestrator.cli.console import out, progress_bar, readable_errors
from orchestrator.cli.index_add import add
from orchestrator.cli.open_index import collections_option, open_index


@click.group()
def index() -> None:
    """Collections of documents: add, list, search, remove. A running service follows changes."""


index.add_command(add)


@index.command()
@collections_option
def build(config_path: Path | None) -> None:
    """Build the embedded collections, as `collegium serve` does on its first start."""
    from experts.store import ModelError
    from orchestrator.config import Config, ConfigError
    from orchestrator.embedded import fill_collections
    from retrieval.errors import RetrievalError

    with readable_errors(ConfigError, ModelError, RetrievalError), progress_bar() as bar:
        fill_collections(Config.load(config_path), bar)


@index.command("list")
@collections_option
def list_collections(config_path: Path | None) -> None:
    """Show every collection with its size."""
    from rich.table import Table

    from retrieval.errors import RetrievalError

    table = Table("collection", "documents", "passages", "KiB")
    with readable_errors(RetrievalError):
        for info in open_index(config_path).list():
            sizes = (info.documents, info.passages, info.bytes >> 10)
            table.add_row(info.name, *(str(size) for size in sizes))
    out.print(table)


@index.command()
@click.argument("query")
@click.option("--collection", "collections", multiple=True, help="Default: all.")
@click.option("--top", default=5, show_default=True, type=click.IntRange(1, 100))
@click.option("--filter", "wanted", help='JSON, as in a request: {"lang": "de"}.')
@collections_option
def search(
    query: str,
    collections: tuple[str, ...],
    top: int,
    wanted: str | None,
    config_path: Path | None,
) -> None:
    """Search as the service does, with both scores of every passage."""
    from rich.table import Table
    from rich.text import Text

    from retrieval.errors import RetrievalError

    table = Table("score", "cosine", "bm25", "collection", "title", "passage")
    conditions = _filter(wanted)
    with readable_errors(RetrievalError):
        opened = open_index(config_path)
        names = collections or tuple(info.name for info in opened.list())
        for p in opened.search(query, None, names, top, conditions):
            text = " ".join(p.text.split())[:200]
            scores = (f"{p.score:.3f}", f"{p.similarity:.3f}", f"{p.bm25:.2f}")
            # Bare strings would be read as markup, and documents hold brackets.
            table.add_row(*scores, p.collection, Text(p.title), Text(text))
    out.print(table)


@index.command()
@click.argument("collection")
@click.option(
    "--queries",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help='JSON Lines: {"query": ..., "relevant_ids": [document ids]}.',
)
@click.option("--dry-run", is_flag=True, help="Show the curve; write nothing.")
@click.option("--reset", is_flag=True, help="Forget what was tuned.")
@collections_option
def tune(
    collection: str, queries: Path | None, dry_run: bool, reset: bool, config_path: Path | None
) -> None:
    """Learn how much meaning counts against words in a collection, from labelled questions.

    The weight is kept in the collection, and used by running services at once, if it did no
    worse than the usual one on questions that had no part in choosing it.
    """
    from orchestrator.cli.tuning import show
    from orchestrator.quiz import QuizError, read_questions
    from retrieval.errors import RetrievalError

    if (queries is None) != reset:
        raise click.UsageError("Give --queries FILE, or --reset alone.")
    with readable_errors(QuizError, RetrievalError, UnicodeDecodeError):
        if queries is None:
            open_index(config_path).untune(collection)
            out.print(f"{collection}: weighed as usual")
            return
        labelled = [asked.labelled for asked in read_questions(queries)]
        show(
            collection,
            open_index(config_path).tune(collection, labelled, keep=not dry_run),
            dry_run,
        )


@index.command()
@click.argument("collection")
@collections_option
def refresh(collection: str, config_path: Path | None) -> None:
    """Make a collection's vector file now; writers do so in the background when it is time."""
    from retrieval.errors import RetrievalError

    with readable_errors(RetrievalError, OSError):
        made = open_index(config_path).refresh(collection)
    if made is None:
        out.print(f"{collection}: nothing to do, or another process is at it")
    else:
        out.print(
            f"{collection}: {made.kind}, {made.count} passages, {made.bytes >> 20} MiB, "
            f"recall@10 {made.recall:.3f}, {made.probes} of {made.lists} lists read"
        )


@index.command()
@click.argument("collection")
@click.option("--document", help="Only this document.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@collections_option
def rm(collection: str, document: str | None, yes: bool, config_path: Path | None) -> None:
    """Remove a collection, or one document of it."""
    from retrieval.errors import RetrievalError

    what = f"document {document} of {collection}" if document else f"collection {collection}"
    if not yes:
        click.confirm(f"Remove {what}?", abort=True)
    with readable_errors(RetrievalError):
        open_index(config_path).remove(collection, document)
    out.print(f"removed {what}", markup=False)


def _filter(text: str | None) -> dict[str, object] | None:
    if text is None:
        return None
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise click.BadParameter(f"not JSON: {error}", param_hint="--filter") from error
    if not isinstance(found, dict):
        raise click.BadParameter('a JSON object, like {"lang": "de"}', param_hint="--filter")
    return found
