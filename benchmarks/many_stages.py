"""The stages of `benchmarks.many_experts` that make something: split, adapters, losses, gate.

Each makes its part again only if what it is made from has changed.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from itertools import zip_longest
from typing import Any

from rich.console import Console
from transformers import AutoTokenizer

from benchmarks.decisive import FEWEST_TOKENS
from benchmarks.many_plan import BASE, Plan, Progress
from benchmarks.specialists import School, fingerprint_of
from benchmarks.split import PARTS, deal, read_lessons, read_table, write_deal
from benchmarks.token_losses import measure
from experts.adapters import load_adapter
from experts.examples import Example, Row, tokenise
from experts.runner import Runner
from router.dataset import fingerprint
from router.losses import LossTable
from router.training import train_gate

STAMP = "stamp"
NO_LIMIT = 1 << 30

console = Console()


def split(plan: Plan, progress: Progress) -> None:
    """Deal the rows of every sub-domain."""
    files = sorted(
        {
            plan.data / "train" / f"{source.file}.jsonl"
            for sources in plan.table.values()
            for source in sources
        }
    )
    settings = json.dumps([asdict(plan.limits), plan.base, repr(plan.table)], sort_keys=True)
    stamp = fingerprint_of(files, settings)
    if read_table(plan.split).get("stamp") != stamp:
        progress("split", 0, 1)
        tokenizer = AutoTokenizer.from_pretrained(plan.base_folder)

        def sizes(row: Row) -> tuple[int, int] | None:
            example = tokenise(tokenizer, row, NO_LIMIT)
            return None if example is None else (example.prompt_length, example.response_length)

        dealt = deal(read_lessons(plan.data, plan.table, sizes, plan.limits), plan.limits)
        shutil.rmtree(plan.split, ignore_errors=True)
        write_deal(plan.split, dealt, plan.limits, stamp)
        progress("split", 1, 1)
    found = read_table(plan.split)
    counts = found["sub_domains"].values()
    sums = {key: sum(one[key] for one in counts) for key in (*PARTS, "tokens")}
    console.print(f"split: {len(counts)} sub-domains, {sums}; left out: {found['left_out']}")


def train(plan: Plan, progress: Progress) -> None:
    """Train the adapters that are missing, one after the other."""
    school = School(
        plan.split, plan.base, plan.base_folder, plan.options, plan.device, plan.threads
    )
    records = school.train(plan.names(), plan.adapters, progress)
    tokens = sum(record["tokens"] for record in records.values())
    taken = sum(record["seconds_in_all"] for record in records.values())
    console.print(f"train: {len(records)} adapters, {tokens} tokens in {taken / 60:.1f} minutes")


def losses(plan: Plan, progress: Progress) -> None:
    """Measure every held-out row, then rows for the gate, under the base and every adapter."""
    kept, names = plan.losses(), plan.names()
    runner = Runner(plan.base_folder, device=plan.device, dtype="float32", threads=plan.threads)
    runner.load([load_adapter(n, plan.adapters / n, runner.linears, plan.base) for n in names])
    examples = [*_held_out(plan, runner.tokenizer), *_for_gate(plan, runner.tokenizer)]
    tokens = sum(len(example.tokens) for example in examples) * (len(names) + 1)
    console.print(f"losses: {len(examples)} rows, {len(names) + 1} experts, {tokens} tokens in all")
    new = measure(runner, names, examples, kept, lambda d, t: progress("losses, rows", d, t))
    console.print(f"losses: {new} rows were new")


def _held_out(plan: Plan, tokenizer: Any) -> list[Example]:  # noqa: ANN401
    parts = []
    for name in plan.names():
        examples = [cut(tokenizer, row, plan.answer_tokens) for row in plan.rows(name, "held_out")]
        short = [e for e in examples if e.response_length < FEWEST_TOKENS]
        left_out = {id(example) for example in short[plan.short_rows :]}
        parts.append([example for example in examples if id(example) not in left_out])
    return _in_turn(parts)


def _for_gate(plan: Plan, tokenizer: Any) -> list[Example]:  # noqa: ANN401
    parts = [plan.rows(name, "gate")[: plan.gate_losses] for name in plan.names()]
    return _in_turn([[cut(tokenizer, row, plan.answer_tokens) for row in rows] for rows in parts])


def _in_turn(parts: Sequence[Sequence[Example]]) -> list[Example]:
    """One of each part in turn, so that what is cut short is even."""
    return [one for turn in zip_longest(*parts) for one in turn if one is not None]


def cut(tokenizer: Any, row: Row, answer_tokens: int) -> Example:  # noqa: ANN401
    """The row with so many tokens of its answer.

    Raises `ValueError` for a row without an answer, which no split holds.
    """
    whole = tokenise(tokenizer, row, NO_LIMIT)
    if whole is None:
        raise ValueError(f"row {row.id} has no answer to measure")
    end = whole.prompt_length + answer_tokens
    return Example(row, whole.tokens[:end], whole.prompt_length)


def gate(plan: Plan, progress: Progress) -> None:
    """Train the router's gate on the labels of all rows but the held-out, and on known losses."""
    known = taught_losses(plan)
    rows = plan.prompts("adapter", "gate")
    told = sorted((key, row.losses) for key, row in known.rows.items())
    settings = json.dumps([plan.epochs, plan.limits.seed, plan.encoder, told])
    stamp = fingerprint_of(plan.files("adapter", "gate"), settings)
    place = plan.gate / STAMP
    if not place.is_file() or place.read_text(encoding="utf-8") != stamp:
        learned, _ = train_gate(
            rows,
            plan.encode,
            seed=plan.limits.seed,
            epochs=plan.epochs,
            progress=progress,
            encoder_name=plan.encoder,
            cache=plan.vector_file,
            losses=known if known.rows else None,
            generalist=BASE,
        )
        learned.save(plan.gate)
        place.write_text(stamp, encoding="utf-8")
    console.print(f"gate: {len(rows)} prompts, the losses of {len(known.rows)} known")


def taught_losses(plan: Plan) -> LossTable:
    """The known losses of rows for the gate, none of which an adapter has seen; no others."""
    whole = plan.losses().table
    keys = (fingerprint(row.text) for row in plan.prompts("gate"))
    rows = {key: whole.rows[key] for key in keys if key in whole.rows}
    return LossTable(whole.experts, whole.marks, rows)
