"""Which way of combining predicts held-out text best: bits per byte, domain by domain.

    python -m benchmarks.quality --data DIR --rows 60

DIR holds code, legal, multilingual, general and mixed as JSON Lines with `prompt` and `response`.
Every response is scored under the base, each adapter, the blend with the router's weights, and
adapters merged by PEFT (linear, TIES). Mixtures follow from the experts' token probabilities:
uniform, with the router's weights, with posterior weights, and the oracle, which takes for each
document the expert that is best on it. The generalist, the best single expert and the mixture with
the router's weights are scored in int8 too. `spliced` joins the first half of one domain's row with
the second half of another's. Intervals are 95 % bootstrap intervals over documents.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

import router as router_package
from benchmarks.machine import circumstances
from benchmarks.merged import merged_adapters
from benchmarks.prompts import EXPERTS
from benchmarks.workbench import Workbench
from experts.examples import Example, Row, choose, read_rows, tokenise
from experts.lowrank import Gate as Weights
from experts.runner import Runner, Work
from experts.store import ModelStore
from retrieval.encoder import Encoder
from router.gate import Gate
from router.router import Router

SETS = ("code", "legal", "multilingual", "general", "mixed")
SPLICED = (("code", "multilingual"), ("legal", "general"), ("code", "legal"))
METHODS = (
    *EXPERTS,
    "best single",
    "uniform average",
    "linear merge",
    "TIES merge",
    "blend, router weights",
    "mixture, router weights",
    "mixture, posterior from router",
    "mixture, posterior from uniform",
    "oracle per document",
    "general, int8",
    "best single, int8",
    "mixture, router weights, int8",
)
_LN2 = 0.6931471805599453
_TOKENS_AT_ONCE = 512
Floats = npt.NDArray[np.float64]
console = Console()


@dataclass(frozen=True)
class Document:
    """One text with what every method says of it: bits by method."""

    set: str
    lang: str
    bytes: int
    bits: Mapping[str, float]


def token_logps(
    runner: Runner, examples: Sequence[Example], gates: Sequence[Weights], label: str
) -> list[torch.Tensor]:
    """Log-probabilities of each example's response tokens under its gate, in packed steps."""
    found: list[torch.Tensor] = []
    batch: list[int] = []
    for number in track(range(len(examples)), label, console=console, transient=True):
        batch.append(number)
        full = sum(len(examples[n].tokens) for n in batch) >= _TOKENS_AT_ONCE
        if full or number == len(examples) - 1:
            found += _step(runner, [examples[n] for n in batch], [gates[n] for n in batch])
            batch = []
    return found


def _step(
    runner: Runner, examples: Sequence[Example], gates: Sequence[Weights]
) -> list[torch.Tensor]:
    works = []
    for example, gate in zip(examples, gates, strict=True):
        row = runner.arena.reserve(len(example.tokens))
        if row is None:
            raise MemoryError("the arena is too small for the batch")
        wanted = range(example.prompt_length - 1, len(example.tokens) - 1)
        works.append(Work(row, gate, example.tokens[:-1], wanted))
    found = []
    for example, work, logits in zip(examples, works, runner.run(works), strict=True):
        targets = torch.tensor(example.tokens[example.prompt_length :], device=logits.device)
        logps = torch.log_softmax(logits.float(), dim=-1).gather(1, targets[:, None])[:, 0]
        found.append(logps.double().cpu())
        runner.arena.release(work.cache, (), [])
    runner.arena.clear()
    return found


def combined(each: torch.Tensor, prior: Sequence[float], *, posterior: bool) -> float:
    """Log-likelihood of a text under a mixture; `each` holds logps [experts, tokens]."""
    weights = torch.tensor(prior, dtype=torch.float64).log()[:, None]
    if posterior:
        # Posterior weights multiply out: the text's likelihood is the mean of the experts'.
        total = torch.logsumexp(weights[:, 0] + each.sum(dim=1), dim=0)
    else:
        total = torch.logsumexp(weights + each, dim=0).sum()
    return float(total)


class Quality:
    """Experts, merged adapters and the router, ready to score."""

    def __init__(self, bench: Workbench) -> None:
        self.runner = bench.runner()
        self._coarse = bench.runner("int8")
        self.runner.load(merged_adapters(bench, self.runner.linears))
        encoder = Encoder(ModelStore().resolve("all-minilm-l6-v2"), threads=bench.threads)
        gate = Gate.load(Path(str(router_package.__file__)).parent / "weights")
        self._router = Router(gate, encoder.encode, EXPERTS, "general")

    def weights(self, prompt: str) -> list[float]:
        """The router's weights for a prompt, in the order of `EXPERTS`."""
        decision = self._router.route([("user", prompt)])
        by_name = {c.name: c.weight for c in decision.candidates}
        return [by_name[name] for name in EXPERTS]

    def documents(self, name: str, examples: Sequence[Example]) -> list[Document]:
        """All methods on one set."""
        routed = [self.weights(example.row.prompt) for example in examples]
        scored: dict[str, list[torch.Tensor]] = {}
        for key, gates in self._gates(routed).items():
            scored[key] = token_logps(self.runner, examples, gates, f"{key} on {name}")
        for key in EXPERTS:
            gates = _alone(key, len(examples))
            label = f"{key}, int8"
            scored[label] = token_logps(self._coarse, examples, gates, f"{label} on {name}")
        return [
            _document(name, example, {key: logps[n] for key, logps in scored.items()}, routed[n])
            for n, example in enumerate(examples)
        ]

    def _gates(self, routed: Sequence[Sequence[float]]) -> dict[str, list[Weights]]:
        alone = {name: _alone(name, len(routed)) for name in EXPERTS}
        blend: list[Weights] = [
            {n: w for n, w in zip(EXPERTS, weights, strict=True) if n != "general"}
            for weights in routed
        ]
        merged: dict[str, list[Weights]] = {
            name: [{name: 1.0}] * len(routed) for name in ("linear merge", "TIES merge")
        }
        return {**alone, "blend, router weights": blend, **merged}


def _alone(expert: str, count: int) -> list[Weights]:
    gate: Weights = {} if expert == "general" else {expert: 1.0}
    return [gate] * count


def _document(
    name: str, example: Example, logps: Mapping[str, torch.Tensor], routed: Sequence[float]
) -> Document:
    each = torch.stack([logps[expert] for expert in EXPERTS])
    coarse = torch.stack([logps[f"{expert}, int8"] for expert in EXPERTS])
    even = [1 / len(EXPERTS)] * len(EXPERTS)
    found = {key: float(value.sum()) for key, value in logps.items()}
    found["uniform average"] = combined(each, even, posterior=False)
    found["mixture, router weights"] = combined(each, routed, posterior=False)
    found["mixture, posterior from router"] = combined(each, routed, posterior=True)
    found["mixture, posterior from uniform"] = combined(each, even, posterior=True)
    found["mixture, router weights, int8"] = combined(coarse, routed, posterior=False)
    found["oracle per document"] = float(each.sum(dim=1).max())
    size = len(example.row.response.encode())
    return Document(name, example.row.lang, size, {k: -v / _LN2 for k, v in found.items()})


def spliced(
    sets: Mapping[str, Sequence[Row]],
    count: int,
    tokenizer: Any,  # noqa: ANN401
    seed: int,
) -> list[Example]:
    """Texts whose first half is of one domain and whose second half of another."""
    rng = random.Random(seed)
    rows = []
    for first, second in SPLICED:
        for number in range(count // len(SPLICED)):
            one, other = rng.choice(sets[first]), rng.choice(sets[second])
            head, tail = (f"{r.prompt}\n\n{r.response}"[:900] for r in (one, other))
            text = head[: len(head) // 2] + "\n\n" + tail[len(tail) // 2 :]
            rows.append(Row(f"{first}-{second}-{number}", "Go on with the text.", text))
    return [e for row in rows if (e := tokenise(tokenizer, row, 512))]


def table(documents: Sequence[Document], seed: int) -> list[dict[str, Any]]:
    """Rows of bits per byte: each method on each set and language."""
    groups: dict[str, list[Document]] = {}
    for one in documents:
        groups.setdefault(one.set, []).append(one)
        if one.set in ("multilingual", "mixed"):
            groups.setdefault(f"{one.set} {one.lang}", []).append(one)
    return [
        {"set": name, "documents": len(some), **_figures(some, seed)}
        for name, some in groups.items()
        if len(some) >= 5
    ]


def _figures(documents: Sequence[Document], seed: int) -> dict[str, Any]:
    sizes = np.array([one.bytes for one in documents], dtype=np.float64)
    bits = {m: np.array([d.bits[m] for d in documents]) for m in documents[0].bits}
    best = min(EXPERTS, key=lambda name: bits[name].sum())
    bits["best single"], bits["best single, int8"] = bits[best], bits[f"{best}, int8"]
    picks = np.random.default_rng(seed).integers(0, len(sizes), size=(5000, len(sizes)))
    found: dict[str, Any] = {"best": best}
    for method in METHODS:
        change = _relative(bits[method], bits[best], picks)
        found[method] = {
            "bits_per_byte": float(bits[method].sum() / sizes.sum()),
            "against_best_single": [float(v) for v in np.quantile(change, [0.025, 0.5, 0.975])],
        }
    return found


def _relative(ours: Floats, theirs: Floats, picks: npt.NDArray[np.int64]) -> Floats:
    relative: Floats = ours[picks].sum(axis=1) / theirs[picks].sum(axis=1) - 1
    return relative


def show(rows: Sequence[Mapping[str, Any]]) -> None:
    """One column per set, one line per method."""
    shown = Table("bits per byte", *(f"{row['set']} ({row['documents']})" for row in rows))
    for method in METHODS:
        shown.add_row(method, *(f"{row[method]['bits_per_byte']:.4f}" for row in rows))
    console.print(shown)


def main() -> None:
    """Score, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with the sets")
    parser.add_argument("--rows", type=int, default=60, help="at most so many of a set")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/quality.json"))
    options = parser.parse_args()
    bench = Workbench(options.threads, device=options.device)
    quality = Quality(bench)
    tokenizer = quality.runner.tokenizer
    sets = {name: read_rows([options.data / f"{name}.jsonl"]) for name in SETS}
    fits: Callable[[Row], Example | None] = lambda row: tokenise(tokenizer, row, 512)  # noqa: E731
    documents: list[Document] = []
    for name, rows in sets.items():
        examples = [e for row in rows if (e := fits(row))]
        chosen = choose(examples, 10**9, options.seed)[: options.rows]
        documents += quality.documents(name, chosen)
    joined = spliced(sets, options.rows, tokenizer, options.seed)
    documents += quality.documents("spliced", joined)
    bench.close()
    rows_out = table(documents, options.seed)
    show([row for row in rows_out if " " not in row["set"]])
    about = {**circumstances(options.threads), "device": options.device}
    body = {"circumstances": about, "rows": rows_out}
    options.out.write_text(json.dumps(body, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
