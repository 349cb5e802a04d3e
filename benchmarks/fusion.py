"""What fusing words and meaning is worth: hit@5 and nDCG@10 beside each of the two alone.

python -m benchmarks.fusion --data DIR --work DIR

DIR of the data holds folders with `docs.jsonl` (`id`, `title`, `text`) and `queries.jsonl`
(`query`, `relevant_ids`, `lang`, optionally `crosslingual`). Weights are tuned on the even lines of
the queries, figures are those of the odd ones. What was encoded stays in the other DIR for the
next time.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from benchmarks.machine import circumstances
from benchmarks.measure import seconds
from experts.store import ModelStore
from retrieval.document import Document
from retrieval.encoder import Encoder
from retrieval.fusion import DENSE_WEIGHT, Fusion
from retrieval.index import Index
from retrieval.measures import hit, ndcg
from retrieval.search_settings import SearchSettings
from retrieval.tuning import Labelled, Tuning

ENCODER = "all-minilm-l6-v2"
PASSAGES = 30
"""Passages that are asked for, so that ten documents are among them."""

Vectors = npt.NDArray[np.float32]
WAYS = {
    "words": SearchSettings(dense_weight=0.0),
    "meaning": SearchSettings(dense_weight=1.0),
    "rrf": SearchSettings(fusion=Fusion.RECIPROCAL),
    "convex": SearchSettings(dense_weight=DENSE_WEIGHT),
}
TUNED = "tuned"


@dataclass(frozen=True)
class Asked:
    """A question with its vector, and the group of questions that it is reported in."""

    labelled: Labelled
    vector: Vectors
    group: str


def lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON Lines file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def questions(path: Path, encoder: Encoder) -> list[Asked]:
    """The questions of a collection in the order of their lines."""
    rows = lines(path)
    vectors = encoder.encode([row["query"] for row in rows])
    return [
        Asked(
            Labelled(row["query"], frozenset(row["relevant_ids"])),
            vector,
            f"{row['lang']}, across languages" if row.get("crosslingual") else row["lang"],
        )
        for row, vector in zip(rows, vectors, strict=True)
    ]


def gains(index: Index, name: str, asked: Sequence[Asked]) -> Iterator[tuple[float, float, float]]:
    """Hit@5, nDCG@10 and milliseconds of each question."""
    for question in asked:
        found: list[str] = []

        def search(question: Asked = question, found: list[str] = found) -> None:
            hits = index.search(question.labelled.query, question.vector, [name], PASSAGES)
            found.extend(dict.fromkeys(passage.document_id for passage in hits))

        took = 1000 * seconds(search)
        relevant = question.labelled.relevant
        yield hit(found, relevant, 5), ndcg(found, relevant, 10), took


def measure(folder: Path, root: Path, encoder: Encoder) -> tuple[Tuning, dict[str, Any]]:
    """Tune on the even lines of one collection, and measure every way on the odd ones."""
    name = folder.name.lower()
    index = Index(root, encoder.encode_passages, encode_query=encoder.encode, reads=encoder.reads)
    index.add(
        name, (Document(d["id"], d["title"], d["text"]) for d in lines(folder / "docs.jsonl"))
    )
    asked = questions(folder / "queries.jsonl", encoder)
    tuning = index.tune(name, [question.labelled for question in asked[1::2]], keep=False)
    ways = {**WAYS, TUNED: replace(WAYS["convex"], dense_weight=tuning.weight)}
    figures: dict[str, Any] = {}
    for way, settings in ways.items():
        other = Index(
            root,
            encoder.encode_passages,
            settings,
            encode_query=encoder.encode,
            reads=encoder.reads,
        )
        rows = np.array(list(gains(other, name, asked[::2])))
        other.close()
        figures[way] = dict(_by_group(rows, [question.group for question in asked[::2]]))
    return tuning, figures


def _by_group(
    rows: npt.NDArray[np.float64], groups: Sequence[str]
) -> Iterator[tuple[str, Mapping[str, float]]]:
    members = defaultdict(list)
    for place, group in enumerate(groups):
        members[group].append(place)
    for group, places in sorted(members.items()):
        hits, gain, took = rows[places].T
        yield (
            group,
            {
                "hit@5": float(hits.mean()),
                "ndcg@10": float(gain.mean()),
                "p50_ms": float(np.median(took)),
                "questions": len(places),
            },
        )


def show(name: str, tuning: Tuning, figures: Mapping[str, Any], console: Console) -> None:
    """Print hit@5 / nDCG@10 of one collection."""
    table = Table(
        title=f"{name}: tuned weight {tuning.weight:.2f}; held out nDCG@10 {tuning.tuned:.3f}, "
        f"at {tuning.usual:.2f} {tuning.plain:.3f}, rrf {tuning.reciprocal:.3f}"
    )
    for column in ("questions", *figures):
        table.add_column(column)
    for group, first in figures["words"].items():
        cells = [
            f"{of[group]['hit@5']:.3f} / {of[group]['ndcg@10']:.3f}" for of in figures.values()
        ]
        table.add_row(f"{group} ({first['questions']})", *cells)
    console.print(table)


def main() -> None:
    """Measure the collections, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="for the collections")
    parser.add_argument("--only", type=lambda text: text.split(","), help="names of folders")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/retrieval.json"))
    options = parser.parse_args()
    encoder = Encoder(ModelStore().resolve(ENCODER), threads=2)
    body = json.loads(options.out.read_text(encoding="utf-8")) if options.out.is_file() else {}
    folders = sorted(path.parent for path in options.data.glob("*/queries.jsonl"))
    for folder in folders:
        if options.only and folder.name not in options.only:
            continue
        tuning, figures = measure(folder, options.work, encoder)
        show(folder.name, tuning, figures, Console())
        found = {"weight": tuning.weight, "curve": tuning.curve, "figures": figures}
        body[folder.name] = {**found, **circumstances(2)}
        options.out.write_text(json.dumps(body, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
