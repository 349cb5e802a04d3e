"""The embedded collections are built once, and again where somebody removed them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from test_retrieval_index import FRUIT, bag_of_words

from orchestrator import embedded
from orchestrator.config import Config
from retrieval import Index


class _Small:
    encode = encode_passages = staticmethod(bag_of_words)
    reads = staticmethod(lambda _text: 1.0)


def test_a_collection_that_was_removed_is_built_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "SOURCES", {"licences": lambda: iter(FRUIT)})
    monkeypatch.setattr(embedded, "open_encoder", lambda *_args, **_more: _Small())
    body: dict[str, Any] = Config.load().model_dump(exclude={"retrieval"})
    config = Config.check(body | {"retrieval": {"directory": str(tmp_path)}})
    built: list[str] = []

    def progress(what: str, done: int, _of: int) -> None:
        if done == 0:
            built.append(what)

    for _ in range(2):
        embedded.fill_collections(config, progress)
    assert built == ["index licences"]
    index = Index(tmp_path, bag_of_words)
    index.remove("licences")
    embedded.fill_collections(config, progress)
    assert built == ["index licences"] * 2
    assert index.info("licences").documents == len(FRUIT)
