"""Progress of an ingestion: files, passages and passages per second."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
)

from orchestrator.cli.console import err

if TYPE_CHECKING:
    from retrieval.ingestion import FileResult


class IngestBar:
    """Shows how far an ingestion of `files` files is, and tells of failures as they come."""

    def __init__(self, collection: str, files: int) -> None:
        self._progress = Progress(
            TextColumn("index {task.fields[name]}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("files  {task.fields[passages]} passages  {task.fields[rate]:.0f}/s"),
            TimeElapsedColumn(),
            console=err,
        )
        self._task = self._progress.add_task("", total=files, name=collection, passages=0, rate=0.0)
        self._passages = 0
        self._began = time.monotonic()

    def __enter__(self) -> IngestBar:
        self._progress.start()
        return self

    def __exit__(self, *_details: object) -> None:
        self._progress.stop()

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._began

    def encoded(self, passages: int) -> None:
        """Count passages that went through the encoder."""
        self._passages += passages
        rate = self._passages / max(self.seconds, 1e-9)
        self._progress.update(self._task, passages=self._passages, rate=rate)

    def done(self, _result: FileResult) -> None:
        """Count a file."""
        self._progress.advance(self._task)
