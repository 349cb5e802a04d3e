"""The right one of thirty adapters: split, train, measure, teach the router, report.

    python -m benchmarks.many_experts --data DIR --out DIR

The folder of the data holds `train/*.jsonl`; `benchmarks/sub_domains.py` says which rows are what.
Every stage keeps what it made below --out and makes it again only if what it is made from has
changed, so a run that was stopped goes on where it stopped. Held-out rows are seen by no adapter
and not by the router.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.machine import Company, await_quiet, circumstances
from benchmarks.many_page import page, sections
from benchmarks.many_plan import Plan, Progress, StageError
from benchmarks.many_proof import proof
from benchmarks.many_stages import console, gate, losses, split, train
from benchmarks.report import show
from benchmarks.specialists import OPTIONS
from benchmarks.split import Limits
from benchmarks.sub_domains import SUB_DOMAINS
from experts.adapters import AdapterError
from experts.device import DeviceError
from experts.examples import ExampleError
from experts.store import ModelError
from orchestrator.cli.console import progress_bar
from router.dataset import DatasetError
from router.figures import plain
from router.gate import GateError
from router.losses import LossError

READABLE = (
    AdapterError, DatasetError, DeviceError, ExampleError, GateError, LossError, ModelError,
    OSError, StageError,
)  # fmt: skip


def report(plan: Plan, progress: Progress) -> None:
    """Decide on the held-out rows, and write `report.json` and `report.md`."""
    company = Company()
    found = plain(proof(plan, progress))
    found["circumstances"] = circumstances(plan.threads) | {"others": company.cores()}
    text = json.dumps(found, indent=1, ensure_ascii=False)
    (plan.out / "report.json").write_text(text + "\n", encoding="utf-8")
    (plan.out / "report.md").write_text(page(found), encoding="utf-8")
    for section in sections(found):
        show(section, console)
    console.print(f"report: {plan.out / 'report.md'}")


STAGES: dict[str, Callable[[Plan, Progress], None]] = {
    "split": split,
    "train": train,
    "losses": losses,
    "gate": gate,
    "report": report,
}


def run(plan: Plan, stages: Sequence[str]) -> None:
    """Run these stages, in their order."""
    plan.out.mkdir(parents=True, exist_ok=True)
    for name, stage in STAGES.items():
        if name in stages:
            with progress_bar() as progress:
                stage(plan, progress)


def main() -> None:
    """Read the options and run the stages."""
    options = _parser().parse_args()
    if options.wait:
        await_quiet()
    try:
        run(_plan(options), options.only or list(STAGES))
    except READABLE as error:
        raise SystemExit(f"error: {error}") from error


def _parser() -> argparse.ArgumentParser:
    limits, parser = (
        Limits(),
        argparse.ArgumentParser(
            prog="python -m benchmarks.many_experts",
            description="Whether the router finds the right one of many adapters.",
        ),
    )
    add = parser.add_argument
    add("--data", type=Path, required=True, help="folder with train/*.jsonl")
    add("--out", type=Path, required=True, help="where every stage keeps what it made")
    add("--only", type=_some_of(STAGES), help=f"some of {', '.join(STAGES)}")
    add("--sub-domains", type=_some_of(SUB_DOMAINS), help="some of them; default: all")
    add("--tokens", type=_count, default=limits.tokens, help="for each adapter: %(default)s")
    add("--held-out", type=_count, default=limits.held_out, help="rows of each: %(default)s")
    add("--gate-rows", type=_count, default=limits.gate_rows, help="besides: %(default)s")
    add("--gate-losses", type=int, default=Plan.gate_losses, help="of these: %(default)s")
    add("--answer-tokens", type=_count, default=Plan.answer_tokens, help="measured: %(default)s")
    add("--short-rows", type=int, default=Plan.short_rows, help="too short to count: %(default)s")
    add("--epochs", type=_count, default=Plan.epochs, help="of the gate: %(default)s")
    add("--base", default=Plan.base)
    add("--seed", type=int, default=limits.seed)
    add("--device", default="cpu", help="of training and losses: cpu, cuda, auto")
    add("--threads", type=_count, default=Plan.threads)
    add("--wait", action="store_true", help="until the machine is quiet")
    return parser


def _plan(options: argparse.Namespace) -> Plan:
    limits = Limits(
        tokens=options.tokens,
        held_out=options.held_out,
        gate_rows=options.gate_rows,
        seed=options.seed,
    )
    return Plan(
        options.data,
        options.out,
        {name: SUB_DOMAINS[name] for name in options.sub_domains or SUB_DOMAINS},
        limits,
        replace(OPTIONS, seed=options.seed, max_length=limits.row_tokens),
        options.base,
        answer_tokens=options.answer_tokens,
        short_rows=options.short_rows,
        gate_losses=options.gate_losses,
        epochs=options.epochs,
        device=options.device,
        threads=options.threads,
    )


def _some_of(known: Collection[str]) -> Callable[[str], list[str]]:
    def read(text: str) -> list[str]:
        names = text.split(",")
        unknown = sorted(set(names) - set(known))
        if unknown:
            raise argparse.ArgumentTypeError(
                f"no {', '.join(unknown)}; there are {', '.join(known)}"
            )
        return names

    return read


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return value


if __name__ == "__main__":
    main()
