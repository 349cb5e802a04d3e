"""From a data folder to a report on a tiny model; what is cut short goes on where it stopped."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.many_experts import STAGES, run
from benchmarks.many_plan import Plan, StageError
from benchmarks.many_stages import cut
from benchmarks.specialists import OPTIONS
from benchmarks.split import Limits
from benchmarks.sub_domains import Source
from benchmarks.token_losses import TokenLosses, measure
from experts.adapters import load_adapter
from experts.runner import Runner
from router.losses import LossError, read_losses

EXPERTS, MARKS = ("base", "red"), ("aa", "bb")
LIMITS = Limits(tokens=900, held_out=8, gate_rows=20, row_tokens=96, fewest=4)
TABLE = {name: (Source("goods", f"{name} shelf"),) for name in ("red", "green", "blue")}
QUESTIONS = {
    "red": "Which thing on the red shelf has the number {}?",
    "green": "How do I open box {}, step by step?",
    "blue": "Write a line of code that moves box {}.",
}
ANSWERS = {
    "red": "The red one, number {}, lies on top of the shelf beside the door.",
    "green": "1. Look behind you.\n2. Take box {}.\n3. Open it slowly and read.",
    "blue": "box({}) = blue; shelf = box; return shelf + box - door * window",
}


class Stopped(Exception):
    """Someone pressed Ctrl-C."""


def silent(_label: str, _done: int, _total: int) -> None:
    return None


@pytest.fixture
def plan(tmp_path: Path, tiny_dir: Path) -> Plan:
    rows = [
        {
            "id": f"{name}-{number}",
            "prompt": QUESTIONS[name].format(number),
            "response": answer.format(number),
            "source": f"{name} shelf",
            "license": "MIT",
        }
        for name, answer in ANSWERS.items()
        for number in range(70)
    ]
    data = tmp_path / "data"
    (data / "train").mkdir(parents=True)
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (data / "train" / "goods.jsonl").write_text(lines)
    options = replace(OPTIONS, rank=2, max_length=LIMITS.row_tokens)
    return Plan(
        data, tmp_path / "out", TABLE, LIMITS, options, str(tiny_dir),
        answer_tokens=24, gate_losses=3, short_rows=2, device="cpu", threads=1,
    )  # fmt: skip


def weights(plan: Plan, out: Path | None = None) -> dict[str, bytes]:
    folder = (out or plan.out) / "adapters"
    return {path.parent.name: path.read_bytes() for path in folder.glob("*/*.safetensors")}


def test_token_losses_are_read_back_and_are_a_table_of_the_router(tmp_path: Path) -> None:
    path = tmp_path / "losses.jsonl"
    kept = TokenLosses(path, EXPERTS, MARKS)
    kept.add("What is it?", [[1.0, 3.0], [0.5, 0.25]])
    again = TokenLosses(path, EXPERTS, MARKS)
    found = again.of("what IS it")
    assert found is not None
    assert found.tolist() == [[1.0, 3.0], [0.5, 0.25]]
    assert again.table == kept.table == read_losses(path)
    assert read_losses(path).matrix(["What is it?"], ["red", "base"]).tolist() == [[0.375, 2.0]]
    assert again.of("another") is None


def test_a_line_that_was_being_written_is_measured_again(tmp_path: Path) -> None:
    path = tmp_path / "losses.jsonl"
    kept = TokenLosses(path, EXPERTS, MARKS)
    kept.add("one", [[1.0], [2.0]])
    whole = path.read_bytes()
    kept.add("two", [[3.0], [4.0]])
    path.write_bytes(path.read_bytes()[:-9])
    again = TokenLosses(path, EXPERTS, MARKS)
    assert again.of("one") is not None
    assert again.of("two") is None
    assert path.read_bytes() == whole


def test_losses_of_other_adapters_are_refused(tmp_path: Path) -> None:
    TokenLosses(tmp_path / "losses.jsonl", EXPERTS, MARKS)
    with pytest.raises(LossError, match="other weights"):
        TokenLosses(tmp_path / "losses.jsonl", EXPERTS, ("aa", "cc"))


@pytest.mark.models
def test_every_stage_says_which_one_comes_before_it(plan: Plan) -> None:
    with pytest.raises(StageError, match="`split` comes first"):
        run(plan, ["train"])
    run(plan, ["split"])
    with pytest.raises(StageError, match="`train` comes first"):
        run(plan, ["losses"])


@pytest.mark.models
def test_the_report_holds_every_figure(plan: Plan) -> None:
    run(plan, list(STAGES))
    found = json.loads((plan.out / "report.json").read_text())
    assert found["rows"] == 3 * LIMITS.held_out
    assert found["measured"] == found["rows"]
    assert found["counted"] + found["base_is_best"] <= found["rows"]
    assert set(found["dealt"]) == set(found["sub_domains"]) == set(TABLE)
    # Each asks in its own way: the router must have learned that from what it was given.
    assert found["accuracy"]["router"]["value"] >= 0.9
    assert found["gate"]["rows_with_losses"] > 0
    assert found["regret"]["routers"]["oracle"]["macro"]["value"] == 0.0
    page = (plan.out / "report.md").read_text()
    for heading in ("Right adapter", "Regret", "Sub-domains", "Confusions", "How"):
        assert f"\n## {heading}\n" in page
    for name in TABLE:
        assert f"\n| {name} |" in page


@pytest.mark.models
def test_training_that_was_stopped_goes_on_to_the_same_adapters(plan: Plan) -> None:
    run(plan, ["split"])

    def stop(_label: str, done: int, total: int) -> None:
        if done > total / 2:
            raise Stopped

    with pytest.raises(Stopped):
        STAGES["train"](plan, stop)
    first = weights(plan)
    assert 0 < len(first) < len(TABLE)
    STAGES["train"](plan, silent)
    assert weights(plan).keys() == TABLE.keys()
    assert first.items() <= weights(plan).items()
    whole = replace(plan, out=plan.out.with_name("whole"))
    run(whole, ["split", "train"])
    assert weights(whole) == weights(plan)


@pytest.mark.models
def test_nothing_is_made_twice_and_other_options_make_it_anew(plan: Plan) -> None:
    run(plan, ["split", "train"])
    seen: list[str] = []
    first = weights(plan)
    for stage in ("split", "train"):
        STAGES[stage](plan, lambda label, _done, _total: seen.append(label))
    assert seen == []
    other = replace(plan, options=replace(plan.options, learning_rate=1e-4))
    STAGES["train"](other, silent)
    assert all(weights(plan)[name] != first[name] for name in TABLE)


@pytest.mark.models
def test_measuring_that_was_stopped_goes_on_with_what_is_missing(plan: Plan) -> None:
    run(plan, ["split", "train"])

    def stop(label: str, done: int, total: int) -> None:
        if done > total / 2:
            raise Stopped

    with pytest.raises(Stopped):
        STAGES["losses"](plan, stop)
    half = dict(plan.losses().table.rows)
    total = 3 * (LIMITS.held_out + plan.gate_losses)
    assert 0 < len(half) < total
    counted: list[int] = []
    STAGES["losses"](plan, lambda _label, done, _total: counted.append(done))
    assert (counted[0], counted[-1]) == (len(half), total)
    whole = plan.losses().table.rows
    assert len(whole) == total
    assert half.items() <= whole.items()


@pytest.mark.models
def test_losses_are_those_of_the_first_tokens_under_each_adapter(plan: Plan) -> None:
    run(plan, ["split", "train", "losses"])
    runner = Runner(plan.base_folder, device="cpu", threads=1, cache_tokens=8192)
    names = plan.names()
    row = plan.rows("green", "held_out")[0]
    example = cut(runner.tokenizer, row, plan.answer_tokens)
    assert example.response_length <= plan.answer_tokens
    found = plan.losses().of(row.prompt)
    assert found is not None
    assert found.shape == (1 + len(names), example.response_length)
    alone = TokenLosses(plan.out / "alone.jsonl", ["base", "blue"], ["", ""])
    runner.load([load_adapter("blue", plan.adapters / "blue", runner.linears, plan.base)])
    assert measure(runner, ["blue"], [example], alone) == 1
    again = alone.of(row.prompt)
    assert again is not None
    assert np.allclose(again, found[[0, 1 + names.index("blue")]], atol=1e-3)
