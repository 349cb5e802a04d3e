"""Search by vectors among a million: time, recall, memory, and what the vector file takes to make.

python -m benchmarks.vector_search

Passages of the embedded collections are encoded, and each made many by jitter. They are written as
a collection of one word each, so that the whole way from the file is measured but the words'.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.console import Console

from benchmarks.machine import Company, await_quiet, circumstances
from benchmarks.measure import Spread, seconds, spread
from benchmarks.report import Goal, Row, Section, save, show
from experts.store import ModelStore
from retrieval.chunking import Chunk, chunk
from retrieval.collection import CollectionWriter
from retrieval.document import Document
from retrieval.encoder import Encoder
from retrieval.search_store import SearchStore
from retrieval.sources import licence_texts, python_docs
from retrieval.vector_build import VectorPlan
from retrieval.vector_file import VectorFile
from retrieval.vector_keeper import VectorKeeper
from retrieval.vectors import VectorIndex

ENCODER = "all-minilm-l6-v2"
NAME = "many"
NEAREST = 10
JITTER = 0.5
"""Length of the noise that is added to a unit vector: its cosine to what it was is 0.89."""

AT_ONCE = 2_000
"""Passages of one document, which is one transaction."""

Vectors = npt.NDArray[np.float32]


def passages(count: int, encoder: Encoder) -> Vectors:
    """Vectors of real passages, [n, d]."""
    documents = chain(python_docs(), licence_texts())
    texts = (f"{d.title}\n{c.text}" for d in documents for c in chunk(d.text, d.format))
    return encoder.encode_passages(list(islice(texts, count)))


def jittered(real: Vectors, count: int, dice: np.random.Generator) -> Vectors:
    """So many unit vectors around the real ones, [count, d]."""
    noise = dice.standard_normal((count, real.shape[1])).astype(np.float32)
    noise *= JITTER / np.linalg.norm(noise, axis=1, keepdims=True)
    found: Vectors = real[dice.integers(len(real), size=count)] + noise
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    return found


def fill(root: Path, real: Vectors, count: int) -> None:
    """Write a collection of `count` passages with vectors around the real ones."""
    dice = np.random.default_rng(1)
    writer = CollectionWriter(root, NAME, real[0])
    for start in range(0, count, AT_ONCE):
        size = min(AT_ONCE, count - start)
        document = Document(f"d{start}", "", "x " * size)
        chunks = [Chunk("x", 2 * n, 2 * n + 1, "") for n in range(size)]
        with writer.writing() as store:
            store.put(document, chunks, jittered(real, size, dice))
    writer.close()


def exhaustive(store: SearchStore, queries: Vectors) -> list[set[int]]:
    """The keys of the `NEAREST` passages to each query, by comparing all vectors in the file."""
    best: list[list[tuple[float, int]]] = [[] for _ in queries]
    for keys, vectors in store.vectors_after(0):
        for row, similarities in enumerate(queries @ vectors.T):
            top = np.argsort(-similarities)[:NEAREST]
            found = zip(similarities[top].tolist(), keys[top].tolist(), strict=True)
            best[row] = sorted([*best[row], *found], reverse=True)[:NEAREST]
    return [{key for _, key in row} for row in best]


def search(folder: Path, file: VectorFile, queries: Vectors) -> Iterator[Row]:
    """Time and recall of searches of the opened collection, and the memory that they took."""
    store = SearchStore(folder / "collection.sqlite")
    truth = exhaustive(store, queries)
    before = memory()
    vectors = VectorIndex(folder, queries.shape[1])
    with store.snapshot():
        opening = seconds(lambda: vectors.follow(store))
        for query in queries[:20]:
            vectors.search(store, query, NEAREST)
        took, recalls = [], []
        for query, right in zip(queries, truth, strict=True):
            took.append(1000 * seconds(lambda query=query: vectors.search(store, query, NEAREST)))  # type: ignore[misc]
            found = {key for key, _ in vectors.search(store, query, NEAREST)}
            recalls.append(len(found & right) / NEAREST)
    grown = {kind: memory()[kind] - before[kind] for kind in before}
    kind = f"{file.kind}, {file.probes} of {file.lists} lists"
    yield Row("search given the vector, p50", spread(took), Goal(10.0), unit="ms", detail=kind)
    yield Row("search given the vector, p99", single(float(np.quantile(took, 0.99))), unit="ms")
    yield Row("recall@10 against all", mean(recalls), Goal(0.97, at_most=False), unit="")
    yield Row("opening the file, hash checked", single(opening), unit="s")
    yield Row("memory of its own", single(grown["RssAnon"]), unit="MiB")
    yield Row("pages of the file in use, shared", single(grown["RssFile"]), unit="MiB")
    store.close()


def memory() -> dict[str, float]:
    """What this process holds for itself and of files, in MiB."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return {kind: int(fields[kind].split()[0]) / 1024 for kind in ("RssAnon", "RssFile")}


def single(value: float) -> Spread:
    """A figure that was taken once."""
    return Spread(value, value, value, 1)


def mean(values: Sequence[float]) -> Spread:
    """The mean with its bootstrap 95 % interval."""
    dice = np.random.default_rng(0)
    draws = [np.mean(dice.choice(values, len(values))) for _ in range(1000)]
    low, high = np.quantile(draws, [0.025, 0.975])
    return Spread(float(np.mean(values)), float(low), float(high), len(values))


def measure(root: Path, count: int, real: Vectors, queries: int) -> Section:
    """The section for `count` passages under `root`, which are written if they are not there."""
    if not (root / NAME).is_dir():
        fill(root, real, count)
    keeper = VectorKeeper(root, VectorPlan())
    made: list[VectorFile | None] = []
    building = seconds(lambda: made.append(keeper.refresh(NAME, force=True)))
    if made[0] is None:
        raise SystemExit("another process is making the vector file")
    asked = jittered(real, queries, np.random.default_rng(2))
    rows = [
        *search(root / NAME, made[0], asked),
        Row("making the file", single(building), unit="s"),
        Row("vector file", single(made[0].bytes / 2**20), unit="MiB"),
        Row("recall@10 as measured when it was made", single(made[0].recall), unit=""),
    ]
    notes = [f"{count} vectors of {real.shape[1]} numbers around {len(real)} real passages"]
    return Section(f"vectors_{count}", rows, notes)


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--counts", default="100000,1000000", help="how many passages")
    parser.add_argument("--real", type=int, default=5000, help="passages that are encoded")
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--quick", action="store_true", help="tiny sizes; writes no results")
    parser.add_argument("--wait", action="store_true", help="until the machine is quiet")
    parser.add_argument("--keep", type=Path, help="folder for the collections, to measure again")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/vectors.json"))
    options = parser.parse_args()
    counts = [3000] if options.quick else [int(n) for n in options.counts.split(",")]
    real = passages(
        50 if options.quick else options.real, Encoder(ModelStore().resolve(ENCODER), threads=2)
    )
    console = Console()
    for count in counts:
        with tempfile.TemporaryDirectory() as scratch:
            root = (options.keep or Path(scratch)) / str(count)
            root.mkdir(parents=True, exist_ok=True)
            if options.wait:
                await_quiet()
            found, company = circumstances(1), Company()
            section = measure(root, count, real, 50 if options.quick else options.queries)
            found["others"] = company.cores()
            show(section, console)
            if not options.quick:
                save(options.out, [section], found)


if __name__ == "__main__":
    main()
