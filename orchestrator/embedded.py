"""The collections that come with the embedded default, built once from what is on the machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from orchestrator.config import Config
from orchestrator.replicas import collections_folder, open_encoder, open_index
from retrieval.collection import collection_names
from retrieval.document import Document
from retrieval.index import Index
from retrieval.sources import licence_texts, python_docs

SOURCES: dict[str, Callable[[], Iterator[Document]]] = {
    "python-docs": python_docs,
    "licences": licence_texts,
}


def fill_collections(config: Config, progress: Callable[[str, int, int], None]) -> None:
    """Build the embedded collections that the experts read and that are not there yet.

    Adding is idempotent: an interrupted build goes on where it stopped.
    """
    index: Index | None = None
    wanted = {name for expert in config.experts.values() for name in expert.collections}
    for name in sorted(wanted & set(SOURCES)):
        marker = collections_folder(config) / f".built-{name}"
        # The marker outlives a removal, and would keep the collection from being built again.
        if marker.exists() and name in collection_names(collections_folder(config)):
            continue
        index = index or open_index(config, open_encoder(config, threads=2))
        _fill(index, name, progress)
        marker.touch()


def _fill(index: Index, name: str, progress: Callable[[str, int, int], None]) -> None:
    documents = list(SOURCES[name]())
    progress(f"index {name}", 0, len(documents))
    index.add(name, documents, lambda done: progress(f"index {name}", done, len(documents)))
