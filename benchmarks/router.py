"""The router's own time: beside the encoder's forward, the gate alone, its first stage, in batches,
with many experts.

python -m benchmarks.router
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console

from benchmarks.first_stage import first_stage, no_encoder
from benchmarks.machine import Company, await_quiet, circumstances
from benchmarks.measure import interleave, quantile, ratios, seconds, spread
from benchmarks.report import Goal, Row, Section, save, show
from experts.store import ModelStore
from orchestrator.config import Config
from orchestrator.registry import open_registry
from retrieval.encoder import Encoder
from router.calibration import Matrix
from router.features import Features, Vector, feature_dimensions, featurize
from router.gate import Gate
from router.overrides import Overrides
from router.policy import decide, project
from router.router import Router
from router.taught import Taught

ENCODER = "all-minilm-l6-v2"
PROMPT_TOKENS = 16
NO_OVERRIDES = Overrides()
PROMPTS = (
    "How do I sort a list of tuples by the second value in Python?",
    "May my landlord keep the deposit if I leave the flat a month early?",
    "¿Cómo puedo cambiar el idioma del teclado en mi ordenador nuevo?",
    "What should I cook for six guests if one of them eats no meat?",
    "Why does this loop print the last element twice before it ends?",
    "Is a contract still valid when one of the parties signed too late?",
    "Wie stelle ich die Uhrzeit auf meinem neuen Rechner richtig ein?",
    "Which museum in the old town is open on a Sunday in winter?",
    "Write a shell command that finds every file larger than a gigabyte.",
    "Who has to pay for repairs if the washing machine breaks down?",
    "Comment puis-je installer une imprimante sans fil à la maison ?",
    "How many weeks before the race should a beginner start to train?",
    "Explain the difference between a class method and a static method.",
    "Can an employer change my working hours without asking me before?",
    "Как мне перенести фотографии с телефона на старый компьютер?",
    "Tell me a short story about a lighthouse keeper and a lost bird.",
)


@dataclass
class Timed:
    """An encoder that remembers how long its calls took."""

    encoder: Callable[[Sequence[str]], Vector]
    took: float = 0.0

    def __call__(self, texts: Sequence[str]) -> Vector:
        """Encode, and add the time to `took`."""
        started = time.perf_counter()
        found = self.encoder(texts)
        self.took += time.perf_counter() - started
        return found


@dataclass(frozen=True)
class Bench:
    """What the sections share; `quick` is for development, not for figures."""

    encoder: Encoder
    gate: Gate
    experts: tuple[str, ...]
    generalist: str
    quick: bool

    def rounds(self, full: int) -> int:
        """How often to measure."""
        return 3 if self.quick else full

    def router(
        self,
        encoder: Callable[[Sequence[str]], Vector],
        gate: Gate | None = None,
        *,
        first_stage: bool = False,
    ) -> Router:
        """A router over these experts, or over the labels of another gate."""
        experts = self.experts if gate is None else gate.labels
        return Router(gate or self.gate, encoder, experts, self.generalist, first_stage=first_stage)


def own_time(bench: Bench) -> Section:
    """Whole decisions, the encoder's part of them, and the rest."""
    timed = Timed(bench.encoder.encode)
    router = bench.router(timed)
    whole, encoding = [], []
    for number in range(bench.rounds(600) + 20):
        text = prompts()[number % len(prompts())]
        timed.took = 0.0
        took = seconds(lambda text=text: router.route([("user", text)]))  # type: ignore[misc]
        if number >= 20:
            whole.append(took)
            encoding.append(timed.took)
    own = [1000 * (a - b) for a, b in zip(whole, encoding, strict=True)]
    rows = [
        Row("beyond the encoder, p50", spread(own), Goal(2.0), unit="ms"),
        Row("beyond the encoder, p99", quantile(own, 0.99), Goal(5.0), unit="ms"),
        Row(
            "whole decision ÷ encoder's forward",
            ratios(whole, encoding),
            Goal(1.1),
            detail=f"{1000 * spread(whole).median:.1f} ms, of {PROMPT_TOKENS}-token prompts",
        ),
    ]
    return Section("own_time", rows)


def gate_alone(bench: Bench) -> Section:
    """From the features of one prompt to a decision, with the gate as it is served."""
    router = bench.router(bench.encoder.encode)
    took = [
        1000 * seconds(lambda row=row: router.decide(row))  # type: ignore[misc]
        for _ in range(bench.rounds(40))
        for row in _features(bench)
    ]
    return Section("gate", [Row("the gate alone", spread(took), Goal(0.5), unit="ms")])


def thousand(bench: Bench) -> Section:
    """Gates of 1,000 experts against one of 4: the product, the decision, and all of routing.

    Of the thousand either all were trained, or all but 4 were taught from examples.
    """
    features, texts = _features(bench), prompts()
    joined = [row.joined() for row in features]
    known = _known(dict(zip(texts, bench.encoder.encode(texts), strict=True)))
    few = bench.router(known, random_gate(4, bench))
    many = {"trained": random_gate(1000, bench), "taught": taught_gate(996, few.gate)}

    def product(router: Router) -> None:
        for row in joined:
            router.gate.probabilities(row)

    def decision(router: Router) -> None:
        for row in features:
            router.decide(row)

    def whole(router: Router) -> None:
        for text in texts:
            router.route([("user", text)])

    rows = []
    for kind, gate in many.items():
        both = (few, bench.router(known, gate))
        rows += [
            _scaled(bench, f"{kind}, features to probabilities", product, both),
            _scaled(bench, f"{kind}, features to decision", decision, both),
            _scaled(bench, f"{kind}, all but the encoder", whole, both, Goal(1.5)),
        ]
    return Section("thousand", rows)


def _scaled(
    bench: Bench,
    what: str,
    action: Callable[[Router], None],
    routers: tuple[Router, Router],
    goal: Goal | None = None,
) -> Row:
    few, many = routers
    sides = {
        "few": lambda: seconds(lambda: action(few)),
        "many": lambda: seconds(lambda: action(many)),
    }
    times = interleave(sides, bench.rounds(31))
    each = [1e6 * spread(times[side]).median / len(prompts()) for side in ("few", "many")]
    detail = f"{each[0]:.0f} µs and {each[1]:.0f} µs a prompt"
    return Row(
        f"1,000 experts ÷ 4, {what}", ratios(times["many"], times["few"]), goal, detail=detail
    )


def batched(bench: Bench) -> Section:
    """Decisions a second: sixteen prompts through one forward, against one at a time."""
    router = bench.router(bench.encoder.encode)
    texts = prompts()
    sides = {
        "batched": lambda: seconds(lambda: decide_batch(router, bench.encoder, texts)),
        "one by one": lambda: seconds(lambda: [router.route([("user", text)]) for text in texts]),
    }
    times = interleave(sides, bench.rounds(31))
    speed = spread([len(texts) / value for value in times["batched"]])
    single = spread([len(texts) / value for value in times["one by one"]])
    row = Row(
        "decisions a second, batched ÷ one at a time",
        ratios(times["one by one"], times["batched"]),
        Goal(1.5, at_most=False),
        detail=f"{speed.median:.0f} and {single.median:.0f} a second, {len(texts)} prompts",
    )
    return Section("batched", [row])


def decide_batch(router: Router, encoder: Encoder, texts: Sequence[str]) -> list[dict[str, float]]:
    """The weights for each text, from one forward of the encoder and one product of the gate."""
    vectors = dict(zip(texts, encoder.encode(texts), strict=True))
    features = [featurize([("user", text)], _known(vectors)).joined() for text in texts]
    probabilities: Matrix = router.gate.probabilities(np.concatenate(features))
    found = []
    for row in probabilities.tolist():
        by_label = dict(zip(router.gate.labels, row, strict=True))
        prior = project(by_label, router.experts, router.generalist)
        found.append(dict(decide(prior, router.generalist, router.policy, NO_OVERRIDES).weights))
    return found


def random_gate(experts: int, bench: Bench) -> Gate:
    """A gate of so many labels, the generalist among them, with random weights."""
    dice = np.random.default_rng(0)
    columns = feature_dimensions(bench.encoder.dimensions)
    labels = (bench.generalist, *(f"expert {number}" for number in range(experts - 1)))
    weight = dice.normal(0.0, 1.0, (experts, columns)).astype(np.float32)
    return Gate(labels, weight, np.zeros(experts, dtype=np.float32), encoder=ENCODER)


def taught_gate(experts: int, trained: Gate) -> Gate:
    """The trained gate with so many experts more, taught at random; few of them are ever meant."""
    dice = np.random.default_rng(1)
    names = tuple(f"taught {number}" for number in range(experts))
    shape = (experts, trained.vector_dimensions)
    weight = dice.normal(0.0, 1.0, shape).astype(np.float32)
    bias = np.full(experts, -8.0, dtype=np.float32)
    taught = Taught(names, weight, bias, weight)
    return replace(trained, labels=(*trained.labels, *names), taught=taught)


def prompts() -> list[str]:
    """Sixteen prompts of about `PROMPT_TOKENS` tokens each."""
    return list(PROMPTS)


def _features(bench: Bench) -> list[Features]:
    return [featurize([("user", text)], bench.encoder.encode) for text in prompts()]


def _known(vectors: dict[str, Vector]) -> Callable[[Sequence[str]], Vector]:
    return lambda texts: np.stack([vectors[text] for text in texts])


SECTIONS: dict[str, Callable[[Bench], Section]] = {
    "own_time": own_time,
    "gate": gate_alone,
    "first_stage": lambda bench: first_stage(
        bench.router(no_encoder, first_stage=True), prompts(), bench.rounds(40)
    ),
    "thousand": thousand,
    "batched": batched,
}


def main() -> None:
    """Measure the sections and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--only", type=lambda text: text.split(","), help=", ".join(SECTIONS))
    parser.add_argument("--quick", action="store_true", help="tiny sizes; writes no results")
    parser.add_argument("--wait", action="store_true", help="until the machine is quiet")
    parser.add_argument("--threads", type=int, default=1, help="of the encoder")
    parser.add_argument("--gate", type=Path, help="a gate's folder; default: the embedded one")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/router.json"))
    options = parser.parse_args()
    chosen = options.only or list(SECTIONS)
    unknown = sorted(set(chosen) - set(SECTIONS))
    if unknown:
        raise SystemExit(f"no section {', '.join(unknown)}; there are {', '.join(SECTIONS)}")
    config = Config.load(None)
    gate = Gate.load(options.gate) if options.gate else open_registry(config).acting()
    encoder = Encoder(ModelStore().resolve(ENCODER), threads=options.threads)
    bench = Bench(encoder, gate, tuple(config.experts), config.generalist, options.quick)
    console = Console()
    for name in chosen:
        if options.wait:
            await_quiet()
        found, company = circumstances(options.threads), Company()
        section = SECTIONS[name](bench)
        found["others"] = company.cores()
        show(section, console)
        if not options.quick:
            save(options.out, [section], found)


if __name__ == "__main__":
    main()
