"""`collegium models`: fetch, list and verify models."""

from __future__ import annotations

import click

from orchestrator.cli.console import out, progress_bar, readable_errors


@click.group()
def models() -> None:
    """Models: embedded ones, Hub ids, local folders, GGUF files."""


@models.command()
@click.argument("sources", nargs=-1)
@click.option("--revision", help="Branch, tag or commit of a Hub id.")
def pull(sources: tuple[str, ...], revision: str | None) -> None:
    """Fetch models; without names, the two of the embedded default.

    Safe to stop and to run again: what is whole is kept, a half model never loads.
    """
    from experts.catalogue import CATALOGUE
    from experts.store import ModelError, ModelStore

    store = ModelStore()
    with readable_errors(ModelError), progress_bar() as bar:
        folders = {s: store.pull(s, revision=revision, progress=bar) for s in sources or CATALOGUE}
    for source, folder in folders.items():
        out.print(f"{source}: {folder}", soft_wrap=True, markup=False)


@models.command("list")
def list_models() -> None:
    """Show what lies in the store, and what can be pulled by name."""
    from rich.table import Table

    from experts.catalogue import CATALOGUE
    from experts.store import ModelStore

    table = Table("model", "state", "MiB", "licence", "source")
    stored = {model.name: model for model in ModelStore().models()}
    for name in sorted({*CATALOGUE, *stored}):
        model, pin = stored.get(name), CATALOGUE.get(name)
        table.add_row(
            name,
            "ready" if model else "not pulled",
            str(model.bytes >> 20) if model else "",
            pin.license if pin else "",
            model.source.split(" ")[0] if model else (pin.summary if pin else ""),
        )
    out.print(table)


@models.command()
@click.argument("names", nargs=-1)
def verify(names: tuple[str, ...]) -> None:
    """Compare stored models, file by file, with the hashes noted when they were built."""
    from experts.store import ModelError, ModelStore

    store = ModelStore()
    chosen = names or tuple(model.name for model in store.models())
    faults: list[str] = []
    with readable_errors(ModelError), progress_bar() as bar:
        for name in chosen:
            faults += [f"{name}: {fault}" for fault in store.verify(name, progress=bar)]
    for fault in faults:
        out.print(fault, markup=False)
    if faults:
        raise click.ClickException("a stored model is damaged: remove its folder and pull it again")
    out.print(f"{len(chosen)} models verified")
