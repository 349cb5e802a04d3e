"""Ingestion against its encoder alone, on the same passages.

    python -m benchmarks.ingestion [--data DIR] [--passages N] [--rounds N] [--json FILE]

Without `--data` the Python documentation strings of this machine are written as Markdown, HTML, PDF
and DOCX, and each kind is ingested by itself; with it the files of a folder are. The encoder's side
gets exactly the texts that the ingestion gave it, in calls of the same size as a search service's
bulk job would use. A ratio of 1 means that reading, cutting and writing cost nothing.
"""

from __future__ import annotations

import argparse
import html
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.machine import circumstances
from benchmarks.measure import Spread, interleave, seconds, spread
from experts.store import ModelStore
from retrieval import Document, Index, originals, python_docs
from retrieval.encoder import Encoder
from retrieval.intake import ENCODED_TOGETHER

GOAL = 0.8
"""Least share of the encoder's own throughput."""

PER_FILE = 20
"""Documents that are written into one file."""


class Recording:
    """The encoder, which keeps what it was asked to encode."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self.texts: list[str] = []

    def __call__(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Encode as the encoder does."""
        self.texts += texts
        return self._encoder.encode(texts)


def write_markdown(path: Path, documents: Sequence[Document]) -> None:
    """Write documents as one Markdown file with a heading for each."""
    text = "\n\n".join(f"# {d.title}\n\n{d.text}" for d in documents)
    path.with_suffix(".md").write_text(text, encoding="utf-8")


def write_html(path: Path, documents: Sequence[Document]) -> None:
    """Write documents as one page."""
    parts = [
        f"<h1>{html.escape(d.title)}</h1>"
        + "".join(f"<p>{html.escape(part)}</p>" for part in d.text.split("\n\n"))
        for d in documents
    ]
    page = f"<html><body>{''.join(parts)}</body></html>"
    path.with_suffix(".html").write_text(page, encoding="utf-8")


def write_pdf(path: Path, documents: Sequence[Document]) -> None:
    """Write documents as a PDF, 60 lines a page."""
    from reportlab.pdfgen.canvas import Canvas

    canvas = Canvas(str(path.with_suffix(".pdf")))
    lines = [line[:110] for d in documents for line in (d.title, *d.text.splitlines(), "")]
    for at in range(0, len(lines), 60):
        for number, line in enumerate(lines[at : at + 60]):
            canvas.drawString(40, 800 - 12 * number, line)
        canvas.showPage()
    canvas.save()


def write_docx(path: Path, documents: Sequence[Document]) -> None:
    """Write documents as a Word document."""
    import docx

    word = docx.Document()
    for document in documents:
        word.add_heading(document.title, 1)
        for part in document.text.split("\n\n"):
            word.add_paragraph(part)
    word.save(str(path.with_suffix(".docx")))


WRITERS: dict[str, Callable[[Path, Sequence[Document]], None]] = {
    "markdown": write_markdown,
    "html": write_html,
    "pdf": write_pdf,
    "docx": write_docx,
}


def fill(folder: Path, kind: str, passages: int) -> None:
    """Write about so many passages' worth of documents as files of one kind."""
    folder.mkdir()
    documents = [d for d, _ in zip(python_docs(), range(passages), strict=False)]
    for at in range(0, len(documents), PER_FILE):
        WRITERS[kind](folder / f"part{at:05}", documents[at : at + PER_FILE])


def measure(encoder: Encoder, folder: Path, rounds: int) -> tuple[int, Spread, Spread]:
    """The passages of a folder, the ratio of both throughputs, and passages per second."""
    scratch = Path(tempfile.mkdtemp())
    recording = Recording(encoder)
    Index(scratch / "first", recording).ingest("bench", originals(folder))
    texts = recording.texts[1:]  # the first text is the one that identifies the encoder

    def ingest() -> float:
        shutil.rmtree(scratch / "again", ignore_errors=True)
        index = Index(scratch / "again", encoder.encode)
        return seconds(lambda: index.ingest("bench", originals(folder)))

    def encode() -> float:
        calls = range(0, len(texts), ENCODED_TOGETHER)
        return seconds(lambda: [encoder.encode(texts[a : a + ENCODED_TOGETHER]) for a in calls])

    times = interleave({"encoder": encode, "ingestion": ingest}, rounds)
    shutil.rmtree(scratch)
    pairs = zip(times["encoder"], times["ingestion"], strict=True)
    return (
        len(texts),
        spread([alone / whole for alone, whole in pairs]),
        spread([len(texts) / whole for whole in times["ingestion"]]),
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="a folder of files to ingest")
    parser.add_argument("--passages", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    encoder = Encoder(ModelStore().pull("all-minilm-l6-v2"), threads=asked.threads)
    found = {}
    with tempfile.TemporaryDirectory() as scratch:
        for kind in [str(asked.data)] if asked.data else list(WRITERS):
            folder = asked.data or Path(scratch) / kind
            if not asked.data:
                fill(folder, kind, asked.passages)
            passages, ratio, rate = measure(encoder, folder, asked.rounds)
            found[kind] = {"passages": passages, "ratio": asdict(ratio), "rate": asdict(rate)}
            sys.stdout.write(
                f"{kind}: {passages} passages, {ratio.median:.3f} × the encoder alone "
                f"[{ratio.low:.3f}, {ratio.high:.3f}] (goal ≥ {GOAL}), {rate.median:.1f}/s\n"
            )
    if asked.json:
        body = {"goal": GOAL, "kinds": found, **circumstances(asked.threads)}
        asked.json.write_text(json.dumps(body, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
