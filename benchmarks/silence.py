"""Whether a search knows that the collections hold no answer: fits and measures `relevance`.

python -m benchmarks.silence --data DIR --work DIR [--fit]

The data are those of `benchmarks.fusion`. Every question is asked twice: of the whole collection,
and of one that lacks the passages that answer it (`relevant_ids` and `parallel_ids`). The model is
fitted on the even lines of the questions, with `--fit` it is written into the package; figures are
those of the odd lines. Vectors are kept under the other DIR for the next time.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from benchmarks.fusion import ENCODER, lines
from benchmarks.machine import circumstances
from experts.store import ModelStore
from retrieval.document import Document
from retrieval.encoder import Encoder
from retrieval.finding import Finding
from retrieval.index import Index
from retrieval.relevance import SIGNALS, signals
from retrieval.search_settings import SearchSettings
from router.vectors import VectorCache

MODEL = Path("retrieval/relevance.json")
FALSE_ALARMS = 0.1
"""Share of the answerable questions that may be refused, on the even lines."""

_PENALTY = 1.0
_STEPS = 60
_WIDE = 15
"""Passages that are asked for where some are taken out, so that enough are left."""

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Case:
    """What was read of one search: `held` says whether the passages that answer were there."""

    read: Array
    held: bool
    odd: bool
    crosslingual: bool


def without(findings: Sequence[Finding], gone: frozenset[str]) -> list[Finding]:
    """The findings of a collection that lacks these documents."""
    kept = []
    for finding in findings:
        keys = {one.key for one in finding.sightings if one.passage.document_id in gone}
        left = [place for place, key in enumerate(finding.offer.keys) if key not in keys]
        offer = replace(
            finding.offer,
            keys=[finding.offer.keys[place] for place in left],
            bm25=finding.offer.bm25[left],
            similarity=finding.offer.similarity[left],
        )
        sightings = tuple(one for one in finding.sightings if one.key not in keys)
        kept.append(Finding(finding.collection, offer, sightings))
    return kept


def cases(folder: Path, index: Index, encoder: VectorCache, top_k: int) -> Iterator[Case]:
    """Each question of a collection, with and without what answers it."""
    name, settings = folder.name.lower(), SearchSettings()
    rows = lines(folder / "queries.jsonl")
    vectors = encoder.encode([row["query"] for row in rows])
    for number, (row, vector) in enumerate(zip(rows, vectors, strict=True), start=1):
        gold = frozenset([*row["relevant_ids"], *(row.get("parallel_ids") or ())])
        full = index.survey(row["query"], vector, [name], top_k)
        wide = index.survey(row["query"], vector, [name], _WIDE)
        for held, findings in ((True, full), (False, without(wide, gold))):
            read = signals(row["query"], findings, settings)
            if read is not None:
                yield Case(read, held, number % 2 == 1, bool(row.get("crosslingual")))


def fitted(read: Array, held: Array) -> tuple[Array, float]:
    """Weights and bias of a logistic regression with a ridge, over signals as they are."""
    mean, spread = read.mean(axis=0), read.std(axis=0) + 1e-9
    scaled = np.hstack([np.ones((len(read), 1)), (read - mean) / spread])
    ridge = _PENALTY * np.eye(scaled.shape[1])
    ridge[0, 0] = 0.0
    weights = np.zeros(scaled.shape[1])
    for _ in range(_STEPS):
        chance = probabilities(scaled, weights, 0.0)
        slope = scaled.T @ (chance - held) + ridge @ weights
        curve = (scaled * (chance * (1.0 - chance))[:, None]).T @ scaled + ridge
        weights -= np.linalg.solve(curve, slope)
    own = weights[1:] / spread
    return own, float(weights[0] - own @ mean)


def probabilities(read: Array, weights: Array, bias: float) -> Array:
    """The model's probability that the answer is there, [n]."""
    logits = np.clip(read @ weights + bias, -30.0, 30.0)
    chances: Array = 1.0 / (1.0 + np.exp(-logits))
    return chances


def figures(chances: Array, held: npt.NDArray[np.bool_], threshold: float) -> dict[str, float]:
    """Recall of "not in the sources", false alarms, and the area under the ROC curve."""
    silent = chances < threshold
    ranks = chances.argsort().argsort() + 1.0
    there, gone = held.sum(), len(held) - held.sum()
    area = (ranks[held].sum() - there * (there + 1) / 2) / (there * gone)
    return {
        "questions": int(there),
        "recall": float(silent[~held].mean()),
        "false_alarms": float(silent[held].mean()),
        "recall_at_a_tenth": float((chances[~held] < np.quantile(chances[held], 0.1)).mean()),
        "auc": float(area),
    }


def model_of(found: Mapping[str, Sequence[Case]]) -> dict[str, Any]:
    """Fit one model to the even lines of all collections, each counting the same."""
    rows = [case for some in found.values() for case in some if not case.odd]
    read, held = np.array([c.read for c in rows]), np.array([c.held for c in rows])
    weights, bias = fitted(read, held.astype(np.float64))
    alarms = [
        np.quantile(probabilities(_read(some), weights, bias), FALSE_ALARMS)
        for some in ([c for c in part if not c.odd and c.held] for part in found.values())
        if some
    ]
    return {
        "weights": dict(zip(SIGNALS, (round(float(w), 6) for w in weights), strict=True)),
        "bias": round(bias, 6),
        "threshold": round(float(np.mean(alarms)), 4),
        "provenance": {
            "script": "benchmarks/silence.py",
            "encoder": ENCODER,
            "collections": sorted(found),
            "questions": len(rows) // 2,
            "false_alarms": FALSE_ALARMS,
        },
    }


def measured(model: Mapping[str, Any], found: Mapping[str, Sequence[Case]]) -> dict[str, Any]:
    """The model's figures on the odd lines of each collection."""
    weights = np.array([model["weights"][name] for name in SIGNALS])
    result: dict[str, Any] = {}
    for name, some in found.items():
        for across in (False, True):
            rows = [c for c in some if c.odd and c.crosslingual == across]
            if rows:
                chances = probabilities(_read(rows), weights, model["bias"])
                held = np.array([c.held for c in rows])
                label = f"{name}, across languages" if across else name
                result[label] = figures(chances, held, model["threshold"])
    keys = ("recall", "false_alarms", "recall_at_a_tenth", "auc")
    alike = [result[name] for name in found]
    result["macro"] = {key: float(np.mean([one[key] for one in alike])) for key in keys}
    return result


def _read(rows: Sequence[Case]) -> Array:
    return np.array([case.read for case in rows])


def show(result: Mapping[str, Mapping[str, float]]) -> None:
    """Print the figures."""
    table = Table(title="not in the sources, odd lines")
    for column in ("collection", "recall", "false alarms", "recall at 0.1", "AUC"):
        table.add_column(column)
    for name, row in result.items():
        cells = (row["recall"], row["false_alarms"], row["recall_at_a_tenth"], row["auc"])
        table.add_row(name, *(f"{cell:.3f}" for cell in cells))
    Console().print(table)


def main() -> None:
    """Measure, with `--fit` after fitting, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="for collections and vectors")
    parser.add_argument("--only", type=lambda text: text.split(","), help="names of folders")
    parser.add_argument("--top-k", type=int, default=2)
    parser.add_argument("--fit", action="store_true", help=f"write {MODEL}")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/silence.json"))
    options = parser.parse_args()
    encoder = VectorCache(
        options.work / "vectors.sqlite",
        Encoder(ModelStore().resolve(ENCODER), threads=1).encode_passages,
        ENCODER,
    )
    index = Index(options.work / "collections", encoder, encode_query=encoder)
    found: dict[str, list[Case]] = {}
    for path in sorted(options.data.glob("*/queries.jsonl")):
        folder = path.parent
        if not options.only or folder.name in options.only:
            rows = lines(folder / "docs.jsonl")
            index.add(folder.name, (Document(d["id"], d["title"], d["text"]) for d in rows))
            found[folder.name] = list(cases(folder, index, encoder, options.top_k))
    model = model_of(found) if options.fit else json.loads(MODEL.read_text(encoding="utf-8"))
    if options.fit:
        MODEL.write_text(json.dumps(model, indent=1) + "\n", encoding="utf-8")
    result = measured(model, found)
    show(result)
    body = {"figures": result, **circumstances(1)}
    options.out.write_text(json.dumps(body, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
