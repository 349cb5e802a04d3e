"""Whether the support check tells true sentences from false ones, and what it costs.

python -m benchmarks.support --data DIR [--count N] [--seed N]

The data are those of `benchmarks.fusion`: sentences of the passages that answer the odd lines of
the questions. True are a sentence as it stands and one with some of its words left out; false are
one with another number, with another name, with a negation put in or taken out, and one of another
passage. F1 is that of telling the false ones; thresholds were chosen on the even lines (`--even`).
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.fusion import ENCODER, lines
from benchmarks.machine import circumstances
from benchmarks.measure import seconds
from experts.store import ModelStore
from retrieval.chunking import chunk
from retrieval.encoder import Encoder
from retrieval.passage import Passage
from retrieval.sentences import sentence_spans
from retrieval.support import Support
from retrieval.words import content_words

ENGLISH = {"en"}
LEFT_OUT = 0.25
"""Share of the words of a true sentence that its shortened twin lacks."""

_AUXILIARY = re.compile(
    r"\b(is|are|was|were|can|could|will|would|should|may|must|has|have|had|does|do|did)\b(?! not)"
)
_NEGATED = re.compile(r"\b(is|are|was|were|can|could|will|would|should|may|must|do|does) not\b")
_NUMBER = re.compile(r"\d+")
_NAME = re.compile(r"(?<=[a-z,] )[A-Z][a-z]{2,}(?: [A-Z][a-z]{2,})*")
_SHORTEST = 6

Change = Callable[[str, random.Random], str | None]


@dataclass(frozen=True)
class Claim:
    """A sentence that is said of a passage, and how it was made."""

    kind: str
    text: str
    passage: Passage

    @property
    def true(self) -> bool:
        """Whether the passage says so."""
        return self.kind in ("verbatim", "shortened")


def passages(folder: Path, *, even: bool) -> list[Passage]:
    """The passages that answer the odd (or even) lines of a collection's questions, in English."""
    rows = lines(folder / "queries.jsonl")[1 if even else 0 :: 2]
    wanted = {name for row in rows for name in row["relevant_ids"]}
    return [
        Passage(
            passage_id=f"{doc['id']}#{part.start}",
            document_id=doc["id"],
            collection=folder.name,
            title=doc["title"],
            url="",
            text=part.text,
            start=part.start,
            end=part.end,
            score=1.0,
            similarity=1.0,
            bm25=1.0,
        )
        for doc in lines(folder / "docs.jsonl")
        if doc["id"] in wanted and doc["lang"] in ENGLISH
        for part in chunk(doc["text"])
    ]


def sentences(passage: Passage) -> list[str]:
    """Those of its sentences that are long enough to be claims, and are prose."""
    found = [passage.text[start:end] for start, end in sentence_spans(passage.text)]
    return [
        text
        for text in found
        if len(content_words(text)) >= _SHORTEST and text.endswith(".") and "\n" not in text
    ]


def shortened(text: str, rng: random.Random) -> str | None:
    """The sentence without some of its words; a negation and what it denies stay."""
    tokens = text.split()
    kept = [token for token in tokens if rng.random() > LEFT_OUT or token.lower() in ("not", "no")]
    return " ".join(kept).rstrip(".,; ") + "." if len(kept) < len(tokens) else None


def changes(numbers: Sequence[str], names: Sequence[str]) -> dict[str, Change]:
    """What makes a sentence false, by kind; None where it cannot."""

    def number(text: str, rng: random.Random) -> str | None:
        found = list(_NUMBER.finditer(text))
        if not found:
            return None
        at = rng.choice(found)
        other = rng.choice([n for n in numbers if n != at[0]])
        return text[: at.start()] + other + text[at.end() :]

    def name(text: str, rng: random.Random) -> str | None:
        found = list(_NAME.finditer(text))
        if not found:
            return None
        at = rng.choice(found)
        other = rng.choice([n for n in names if n != at[0]])
        return text[: at.start()] + other + text[at.end() :]

    return {"number": number, "name": name, "negation": _negate}


def _negate(text: str, rng: random.Random) -> str | None:
    if _NEGATED.search(text):
        return _NEGATED.sub(r"\1", text, count=1)
    found = list(_AUXILIARY.finditer(text))
    if not found:
        return None
    at = rng.choice(found)
    return f"{text[: at.end()]} not{text[at.end() :]}"


def claims(known: Sequence[Passage], count: int, rng: random.Random) -> Iterator[Claim]:
    """True and false sentences, as many of each, `count` of each false kind where there are."""
    pairs = [(passage, text) for passage in known for text in sentences(passage)]
    rng.shuffle(pairs)
    numbers = sorted({n for _, text in pairs for n in _NUMBER.findall(text)})
    names = sorted({n for _, text in pairs for n in _NAME.findall(text)})
    false = 0
    for kind, change in changes(numbers, names).items():
        made = 0
        for passage, text in pairs:
            other = change(text, rng) if made < count else None
            if other is not None and other not in passage.text:
                made += 1
                yield Claim(kind, other, passage)
        false += made
    for passage, text in pairs[:count]:
        strange = rng.choice([p for p in known if p.document_id != passage.document_id])
        false += 1
        yield Claim("wrong passage", text, strange)
    rng.shuffle(pairs)
    for place, (passage, text) in enumerate(pairs[:false]):
        short = shortened(text, rng) if place % 2 else None
        yield Claim("shortened" if short else "verbatim", short or text, passage)


def judge(made: Sequence[Claim], encoder: Encoder) -> list[tuple[Claim, bool, float]]:
    """Each claim, whether it was found supported, and the seconds that it took."""
    judged = []
    for claim in made:
        found: list[bool] = []

        def check(claim: Claim = claim, found: list[bool] = found) -> None:
            support = Support([claim.passage], encoder.encode)
            found.append(support.best(claim.text) is not None)

        took = seconds(check)
        judged.append((claim, found[0], took))
    return judged


def figures(judged: Sequence[tuple[Claim, bool, float]]) -> dict[str, Any]:
    """F1 of telling false claims, the share judged rightly by kind, and the time of a check."""
    told = sum(not supported for claim, supported, _ in judged if not claim.true)
    false = sum(not claim.true for claim, _, _ in judged)
    flagged = sum(not supported for _, supported, _ in judged)
    kinds = defaultdict(list)
    for claim, supported, _ in judged:
        kinds[claim.kind].append(supported == claim.true)
    return {
        "claims": len(judged),
        "f1": 2 * told / (false + flagged),
        "precision": told / max(1, flagged),
        "recall": told / max(1, false),
        "right": {kind: float(np.mean(some)) for kind, some in sorted(kinds.items())},
        "count": {kind: len(some) for kind, some in sorted(kinds.items())},
        "p50_ms": 1000 * float(np.median([took for _, _, took in judged])),
        "mean_ms": 1000 * float(np.mean([took for _, _, took in judged])),
    }


def show(found: dict[str, Any]) -> None:
    """Print the figures of each collection."""
    table = Table(title="telling false sentences from true ones")
    for column in ("collection", "claims", "F1", "precision", "recall", "right by kind", "ms"):
        table.add_column(column)
    for name, row in found.items():
        kinds = ", ".join(f"{kind} {share:.2f}" for kind, share in row["right"].items())
        cells = (f"{row[key]:.3f}" for key in ("f1", "precision", "recall"))
        table.add_row(name, str(row["claims"]), *cells, kinds, f"{row['mean_ms']:.1f}")
    Console().print(table)


def main() -> None:
    """Measure, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--count", type=int, default=60, help="false claims of each kind")
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--even", action="store_true", help="the lines to choose thresholds on")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/support.json"))
    options = parser.parse_args()
    encoder = Encoder(ModelStore().resolve(ENCODER), threads=1)
    found: dict[str, Any] = {}
    judged = []
    for path in sorted(options.data.glob("*/queries.jsonl")):
        known = passages(path.parent, even=options.even)
        made = list(claims(known, options.count, random.Random(options.seed))) if known else []
        if made:
            judged += (part := judge(made, encoder))
            found[path.parent.name] = figures(part)
    found["all"] = figures(judged)
    show(found)
    body = {"figures": found, "seed": options.seed, **circumstances(1)}
    options.out.write_text(json.dumps(body, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
