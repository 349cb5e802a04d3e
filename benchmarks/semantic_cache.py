"""What the semantic cache serves at a bounded error, beside the best threshold on the cosine.

python -m benchmarks.semantic_cache --data DIR --work DIR

DIR of the data holds `train/general.jsonl` with `source`, `prompt`, and `intent` (CLINC150: what
people typed) or `response` (OpenTriviaQA: questions with their gold answer). Two questions have the
same answer where their label is the same: the intent, or the gold answer's text. Labels are parted
in two by their order: what is set was chosen on one half (`--half even`), figures are those of the
other. They arrive in random orders, one for each seed. The threshold is the best in hindsight, for
each seed; the learnt cache knows nothing beforehand. Vectors stay in the other DIR.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from benchmarks.machine import circumstances
from experts.store import ModelStore
from orchestrator.cache_config import SemanticCacheConfig
from orchestrator.hit_policy import HitPolicy
from orchestrator.likeness import Kin
from orchestrator.sameness import facts
from retrieval.encoder import Encoder
from router.vectors import VectorCache

ENCODER = "all-minilm-l6-v2"
HALVES = ("even", "odd")
SETS = {"clinc150": "clinc/oos-eval data_full train", "trivia": "uberspot/OpenTriviaQA"}
STREAMS = {"both": tuple(SETS), **{name: (name,) for name in SETS}}
_HIGHEST, _LOWEST, _COARSE, _FINE = 0.98, 0.4, 0.02, 0.005

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Asked:
    """Questions: labels [n], vectors [n, d], facts [n].

    `near` lists for each the places of those whose cosine is at least `_LOWEST`, nearest first,
    with the cosines.
    """

    labels: npt.NDArray[np.int64]
    vectors: Vectors
    facts: Sequence[str]
    near: Sequence[tuple[list[int], list[float]]]

    @classmethod
    def of(cls, labels: npt.NDArray[np.int64], vectors: Vectors, facts: Sequence[str]) -> Asked:
        """Compare each with all others, once for all orders of arrival."""
        near = []
        for place, vector in enumerate(vectors):
            similar = vectors @ vector
            close = np.flatnonzero(similar >= _LOWEST)
            ranked = close[np.argsort(-similar[close], kind="stable")]
            ranked = ranked[ranked != place]
            near.append((ranked.tolist(), similar[ranked].tolist()))
        return cls(labels, vectors, facts, near)


@dataclass(frozen=True)
class Served:
    """Shares of all requests: those that got an earlier answer, and those that got a wrong one."""

    hits: float
    errors: float
    threshold: float | None = None

    @property
    def wrong_hits(self) -> float:
        """The share of the hits that were wrong."""
        return self.errors / self.hits if self.hits else 0.0


def questions(path: Path, names: Sequence[str], half: str) -> Iterator[tuple[str, str]]:
    """Prompts and labels of these sets, those of every other label."""
    found = defaultdict(list)
    for line in path.read_text(encoding="utf-8").split("\n"):
        row = json.loads(line) if line else {}
        for name in names:
            if row.get("source") == SETS[name]:
                label = row.get("intent") or row["response"]
                found[name, label].append(row["prompt"])
    for name in names:
        labels = sorted(label for of, label in found if of == name)
        for label in labels[HALVES.index(half) :: 2]:
            for prompt in found[name, label]:
                yield prompt, f"{name}: {label}"


def learnt(
    asked: Asked, order: Sequence[int], draw: np.random.Generator, settings: SemanticCacheConfig
) -> Served:
    """What the cache of the service does, its answers taken from the labels."""
    policy, kins = HitPolicy(settings, draw.random), defaultdict[str, Kin](Kin)
    hits = wrong = 0
    for number in order:
        kin, sense = kins[asked.facts[number]], str(asked.labels[number])
        vector = asked.vectors[number]
        verdict = policy.decide(kin.likeness(vector))
        if verdict is None:
            kin.add(number, vector, sense)
            continue
        same = verdict.likeness.sense == sense
        if verdict.serves:
            hits, wrong = hits + 1, wrong + (not same)
            continue
        features = verdict.likeness.features()
        policy.learn(features, same=same)
        kin.note(verdict.likeness.sense, same=same)
        kin.add(number, vector, sense, float(same))
    return Served(hits / len(asked.labels), wrong / len(asked.labels))


def at_threshold(asked: Asked, order: Sequence[int], threshold: float) -> Served:
    """What a cache does that serves the nearest earlier question from this cosine on."""
    kept: set[int] = set()
    hits = wrong = 0
    for number in order:
        places = zip(*asked.near[number], strict=True)
        nearest = next((place for place in places if place[0] in kept), None)
        if nearest is not None and nearest[1] >= threshold:
            hits, wrong = hits + 1, wrong + int(asked.labels[nearest[0]] != asked.labels[number])
        else:
            kept.add(number)
    return Served(hits / len(order), wrong / len(order), threshold)


def best_threshold(asked: Asked, order: Sequence[int], max_error: float) -> Served:
    """The most that any threshold serves with this share of wrong answers.

    Thresholds go down until the error is too large, and back up from there in smaller steps.
    """
    best, threshold = Served(0.0, 0.0), _HIGHEST
    while threshold >= _LOWEST:
        found = at_threshold(asked, order, threshold)
        if found.errors > max_error:
            break
        best, threshold = found, threshold - _COARSE
    for step in range(1, round(_COARSE / _FINE)):
        found = at_threshold(asked, order, threshold + step * _FINE)
        if found.errors <= max_error and found.hits > best.hits:
            return found
    return best


def compare(asked: Asked, seeds: int, settings: SemanticCacheConfig) -> list[dict[str, Served]]:
    """Both on each order of arrival."""
    found = []
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(asked.labels)).tolist()
        static = best_threshold(asked, order, settings.max_error)
        found.append({"learnt": learnt(asked, order, rng, settings), "threshold": static})
    return found


def figures(found: Sequence[dict[str, Served]], requests: int) -> dict[str, object]:
    """Means over the orders, the worst error, and every order."""
    of = {name: [row[name] for row in found] for name in found[0]}
    means = {
        name: {
            "hits": float(np.mean([one.hits for one in served])),
            "errors": float(np.mean([one.errors for one in served])),
            "worst_errors": max(one.errors for one in served),
            "wrong_hits": float(np.mean([one.wrong_hits for one in served])),
        }
        for name, served in of.items()
    }
    ratios = [row["learnt"].hits / max(row["threshold"].hits, 1e-9) for row in found]
    orders = [{name: asdict(served) for name, served in row.items()} for row in found]
    spread = {"mean": float(np.mean(ratios)), "least": min(ratios), "most": max(ratios)}
    return {"requests": requests, "ratio": spread, **means, "orders": orders}


def show(stream: str, found: dict[str, object], console: Console) -> None:
    """Print the means of one stream."""
    table = Table(title=f"{stream}: {found['requests']} requests, ratio of hits {found['ratio']}")
    for column in ("", "hits", "errors", "worst_errors", "wrong_hits"):
        table.add_column(column)
    for name in ("learnt", "threshold"):
        row = found[name]
        if isinstance(row, dict):
            table.add_row(name, *(f"{100 * value:.2f} %" for value in row.values()))
    console.print(table)


def main() -> None:
    """Measure every stream, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="for the vectors")
    parser.add_argument("--half", choices=HALVES, default="odd")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--max-error", type=float, default=0.01)
    parser.add_argument("--only", choices=list(STREAMS))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/semantic_cache.json"))
    options = parser.parse_args()
    encoder = Encoder(ModelStore().resolve(ENCODER), threads=2)
    memory = VectorCache(options.work / "vectors.sqlite", encoder.encode, ENCODER)
    settings = SemanticCacheConfig(enabled=True, max_error=options.max_error)
    body = json.loads(options.out.read_text(encoding="utf-8")) if options.out.is_file() else {}
    for stream in [options.only] if options.only else STREAMS:
        rows = list(questions(options.data / "train/general.jsonl", STREAMS[stream], options.half))
        prompts = [prompt for prompt, _ in rows]
        _, labels = np.unique([label for _, label in rows], return_inverse=True)
        asked = Asked.of(labels, memory.encode(prompts), [facts(prompt) for prompt in prompts])
        found = figures(compare(asked, options.seeds, settings), len(rows))
        show(stream, found, Console())
        made = {"half": options.half, "max_error": options.max_error, "encoder": ENCODER}
        body[stream] = {**found, **made, **circumstances(2)}
        options.out.write_text(json.dumps(body, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
