"""`collegium index add`: files and folders into a collection."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.console import err, out, readable_errors
from orchestrator.cli.ingest_bar import IngestBar
from orchestrator.cli.open_index import collections_option, open_index

if TYPE_CHECKING:
    from retrieval.errors import UnreadableSource
    from retrieval.ingestion import FileResult
    from retrieval.labels import Labels
    from retrieval.original import Original

_INTERRUPTED = 130


@click.command()
@click.argument(
    "paths",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, path_type=Path),
    metavar="PATH...",
)
@click.option("--collection", required=True, help="Made if it is not there: a-z, 0-9, - and _.")
@click.option("--base-url", default="", help="Put before each file's path to make its address.")
@click.option("--license", "license_", default="", help="Licence of documents that name none.")
@click.option("--lang", default="", help="Language of documents that name none: en, pt-BR, ...")
@click.option("--metadata", multiple=True, metavar="KEY=VALUE", help="Kept with every document.")
@click.option("--include", multiple=True, metavar="GLOB", help="Only files like it; repeatable.")
@click.option("--exclude", multiple=True, metavar="GLOB", help="No files like it; repeatable.")
@click.option("--prune", is_flag=True, help="Remove what was added from these folders and is gone.")
@click.option("--json", "as_json", is_flag=True, help="What became of each file, as JSON.")
@collections_option
def add(
    paths: tuple[Path, ...],
    collection: str,
    prune: bool,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    as_json: bool,
    config_path: Path | None,
    **said: Any,  # noqa: ANN401
) -> None:
    """Add files, or folders of them: text, Markdown, HTML, PDF, DOCX, JSON Lines, source code.

    Files that did not change are skipped; an interrupted run goes on where it stopped. A file that
    cannot be read is told at the end, the others are added, and the command ends with 1.
    """
    from retrieval.errors import RetrievalError

    results: list[FileResult] = []
    stopped = False
    with readable_errors(RetrievalError):
        labels = _labels(**said)
        files = _files(paths, include, exclude, may_be_empty=prune)
        index = open_index(config_path)
        with IngestBar(collection, len(files)) as bar:

            def report(result: FileResult) -> None:
                results.append(result)
                bar.done(result)

            folders = [path for path in paths if path.is_dir()] if prune else []
            try:
                index.ingest(collection, files, labels, report, encoded=bar.encoded, prune=folders)
            except KeyboardInterrupt:
                stopped = True
    _tell(collection, results, bar.seconds, as_json=as_json)
    if stopped:
        err.print("Stopped. What is counted above is in; the same command goes on from there.")
        raise SystemExit(_INTERRUPTED)
    if any(result.outcome == "failed" for result in results):
        raise SystemExit(1)


def _labels(license_: str, lang: str, base_url: str, metadata: tuple[str, ...]) -> Labels:
    from retrieval.labels import Labels

    values = dict(_entry(entry) for entry in metadata)
    return Labels(license=license_, lang=lang, metadata=values, base_url=base_url)


def _entry(entry: str) -> tuple[str, str | int | float | bool]:
    key, sign, value = entry.partition("=")
    if not (key and sign):
        raise click.BadParameter(
            f"{entry!r} is not of the form KEY=VALUE.", param_hint="--metadata"
        )
    try:
        read = json.loads(value)
    except ValueError:
        return key, value
    return key, read if isinstance(read, str | int | float) else value


def _files(
    paths: Sequence[Path], include: Sequence[str], exclude: Sequence[str], *, may_be_empty: bool
) -> list[Original | UnreadableSource]:
    from retrieval.errors import UnreadableSource
    from retrieval.folder import originals

    distinct = {path.resolve(): path for path in paths}
    files: list[Original | UnreadableSource] = []
    for path in distinct.values():
        try:
            files += originals(path, include, exclude)
        except UnreadableSource:
            # All that was in a folder may be gone by now, which is what pruning is for.
            if not (may_be_empty and path.is_dir()):
                raise
    return files


def _tell(collection: str, results: Sequence[FileResult], seconds: float, *, as_json: bool) -> None:
    counts = Counter(str(result.outcome) for result in results)
    documents = sum(result.documents for result in results)
    passages = sum(result.passages for result in results)
    if as_json:
        body = {
            "collection": collection,
            "counts": dict(sorted(counts.items())),
            "documents": documents,
            "passages": passages,
            "seconds": round(seconds, 3),
            "files": [asdict(result) for result in results if result.outcome != "unchanged"],
        }
        out.print_json(json.dumps(body))
        return
    shown = ", ".join(f"{number} {outcome}" for outcome, number in sorted(counts.items()))
    out.print(
        f"{collection}: {shown or 'no'} files; {documents} documents with {passages} passages "
        f"written in {seconds:.1f} s",
        markup=False,
        soft_wrap=True,
    )
    for message in (message for result in results for message in result.errors):
        err.print(f"  {message}", markup=False, highlight=False, soft_wrap=True)
