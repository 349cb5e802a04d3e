"""Training of an adapter on the tiny model, and the data that goes into it."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from experts.adapters import AdapterError, load_adapter
from experts.device import DeviceError, choose_device
from experts.examples import (
    Example,
    ExampleError,
    Row,
    bucket,
    choose,
    read_rows,
    split_rows,
    tokenise,
)
from experts.gated import decoder_linears
from experts.losses import (
    divergences,
    last_occurrence,
    mean_divergence,
    mean_loss,
    row_losses,
    token_losses,
)
from experts.training import (
    Lessons,
    Step,
    TrainingOptions,
    TrainingReport,
    train_adapter,
)

COLOURS = ("red", "green", "blue", "white", "black", "pink", "brown", "grey")
FRUITS = ("apple", "pear", "plum", "fig", "lemon", "melon")
OPTIONS = TrainingOptions(
    rank=2, alpha=8, learning_rate=2e-2, epochs=2, batch_tokens=240, checkpoint_every=3
)


@pytest.fixture(scope="module")
def tokenizer(tiny_dir: Path) -> Any:  # noqa: ANN401
    return AutoTokenizer.from_pretrained(tiny_dir)


@pytest.fixture(scope="module")
def examples(tokenizer: Any) -> list[Example]:  # noqa: ANN401
    rows = [
        Row(f"{c}-{f}", f"Tell me about a {c} {f}.", "It is ripe." + " Yes." * (n % 5))
        for n, (c, f) in enumerate((c, f) for c in COLOURS for f in FRUITS)
    ]
    found = [tokenise(tokenizer, row, 64) for row in rows]
    return [example for example in found if example]


def fresh(tiny_dir: Path) -> Any:  # noqa: ANN401
    return AutoModelForCausalLM.from_pretrained(tiny_dir)


def trained(
    tiny_dir: Path, examples: Sequence[Example], folder: Path, options: TrainingOptions = OPTIONS
) -> TrainingReport:
    return train_adapter(
        fresh(tiny_dir), Lessons(examples[:36], examples[36:]), folder, options, base="tiny"
    )


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter_model.safetensors")


@pytest.fixture(scope="module")
def finished(
    tiny_dir: Path, examples: list[Example], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, TrainingReport]:
    folder = tmp_path_factory.mktemp("run") / "adapter"
    return folder, trained(tiny_dir, examples, folder)


def test_loss_is_that_of_the_response_tokens_from_full_logits(
    tiny_dir: Path, examples: list[Example]
) -> None:
    model = fresh(tiny_dir).eval()
    batch = [examples[0], examples[3], examples[4]]
    assert len({len(e.tokens) for e in batch}) > 1
    expected = []
    for example in batch:
        with torch.no_grad():
            logits = model(torch.tensor([example.tokens])).logits[0].double()
        for position in range(example.prompt_length, len(example.tokens)):
            normalised = logits[position - 1] - logits[position - 1].logsumexp(0)
            expected.append(-float(normalised[example.tokens[position]]))
    found = token_losses(model, batch).tolist()
    assert found == pytest.approx(expected, abs=1e-5)
    by_row = {e.row.id: loss for e, loss in row_losses(model, batch, 64)}
    first = examples[0].response_length
    assert by_row[examples[0].row.id] == pytest.approx(sum(expected[:first]), abs=1e-4)
    assert mean_loss(model, batch, 64) == pytest.approx(sum(expected) / len(expected), abs=1e-5)


def test_the_learnable_is_learnt(finished: tuple[Path, TrainingReport]) -> None:
    _, report = finished
    assert report.loss_after < 0.5 * report.loss_before
    assert report.rows == 36
    assert report.steps > 10


def test_the_report_has_the_losses_of_base_and_adapter(
    finished: tuple[Path, TrainingReport], tiny_dir: Path, examples: list[Example]
) -> None:
    folder, report = finished
    assert report.loss_before == pytest.approx(mean_loss(fresh(tiny_dir), examples[36:], 500))
    adapted = PeftModel.from_pretrained(fresh(tiny_dir), folder)
    assert report.loss_after == pytest.approx(mean_loss(adapted, examples[36:], 500), rel=0.01)
    assert report.trained_tokens == 2 * sum(e.response_length for e in examples[:36])


def test_the_adapter_is_a_peft_folder_in_half_precision(
    finished: tuple[Path, TrainingReport], tiny_dir: Path
) -> None:
    folder, _ = finished
    assert {t.dtype for t in tensors(folder).values()} == {torch.float16}
    assert sorted(p.name for p in folder.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "tiny"
    layers = decoder_linears(fresh(tiny_dir))
    linears = {path: (layer.in_features, layer.out_features) for path, layer in layers.items()}
    adapter = load_adapter("x", folder, linears, "tiny")
    assert adapter.weights.keys() == linears.keys()
    assert {(pair.rank, pair.scale) for pair in adapter.weights.values()} == {(2, 4.0)}
    assert sorted(p.name for p in folder.parent.iterdir()) == ["adapter"]


def test_a_crash_while_an_adapter_is_replaced_leaves_none_of_mixed_parts(
    tiny_dir: Path, examples: list[Example], tmp_path: Path
) -> None:
    folder = tmp_path / "adapter"
    (folder / "adapter_model.safetensors").mkdir(parents=True)
    (folder / "adapter_config.json").write_text('{"lora_alpha": 1}')
    with pytest.raises(IsADirectoryError):
        trained(tiny_dir, examples, folder)
    with pytest.raises(AdapterError, match="there is no adapter_config.json"):
        load_adapter("x", folder, {})
    (folder / "adapter_model.safetensors").rmdir()
    again = trained(tiny_dir, examples, folder)
    assert json.loads((folder / "adapter_config.json").read_text())["lora_alpha"] == 8
    assert len(tensors(folder)) == 28 and again.steps > 10


class Stopped(Exception):
    """The run is cut off here."""


@pytest.mark.parametrize("cut", [2, 8])
def test_a_run_that_was_cut_off_goes_on_to_the_same_weights(
    finished: tuple[Path, TrainingReport],
    tiny_dir: Path,
    examples: list[Example],
    tmp_path: Path,
    cut: int,
) -> None:
    def stop(step: Step) -> None:
        if step.number == cut:
            raise Stopped

    folder = tmp_path / "adapter"
    with pytest.raises(Stopped):
        train_adapter(
            fresh(tiny_dir),
            Lessons(examples[:36], examples[36:]),
            folder,
            OPTIONS,
            stop,
            base="tiny",
        )
    assert not folder.exists()
    torch.manual_seed(99)
    numbers: list[int] = []
    report = train_adapter(
        fresh(tiny_dir),
        Lessons(examples[:36], examples[36:]),
        folder,
        OPTIONS,
        lambda step: numbers.append(step.number),
        base="tiny",
    )
    done = (cut - 1) // 3 * 3
    assert numbers == list(range(done + 1, report.steps + 1))
    whole, resumed = tensors(finished[0]), tensors(folder)
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert report.loss_before == finished[1].loss_before


@pytest.mark.parametrize(
    ("options", "base"),
    [(TrainingOptions(rank=2, epochs=1, batch_tokens=240), ""), (OPTIONS, "another base")],
    ids=["options", "base"],
)
def test_a_checkpoint_of_other_options_or_another_base_is_not_used(
    tiny_dir: Path, examples: list[Example], tmp_path: Path, options: TrainingOptions, base: str
) -> None:
    def stop(step: Step) -> None:
        if step.number == 4:
            raise Stopped

    folder = tmp_path / "adapter"
    with pytest.raises(Stopped):
        train_adapter(fresh(tiny_dir), Lessons(examples[:36], []), folder, OPTIONS, stop)
    numbers: list[int] = []
    train_adapter(
        fresh(tiny_dir),
        Lessons(examples[:36], []),
        folder,
        options,
        lambda step: numbers.append(step.number),
        base,
    )
    assert numbers[0] == 1


def test_another_seed_gives_other_weights(
    finished: tuple[Path, TrainingReport], tiny_dir: Path, examples: list[Example], tmp_path: Path
) -> None:
    other = TrainingOptions(**{**finished[1].options, "seed": 1})
    trained(tiny_dir, examples, tmp_path / "other", other)
    first, second = tensors(finished[0]), tensors(tmp_path / "other")
    assert not any(torch.equal(first[name], second[name]) for name in first)


def test_a_step_foretells_the_time_that_is_left() -> None:
    assert Step(number=4, total=10, loss=1.0, tokens=5, elapsed=8.0).remaining == 12.0


def test_batches_hold_every_example_once_and_keep_to_the_bound(examples: list[Example]) -> None:
    for seed in range(5):
        batches = bucket(examples, 200, seed)
        ids = [e.row.id for batch in batches for e in batch]
        assert sorted(ids) == sorted(e.row.id for e in examples)
        for batch in batches:
            assert max(len(e.tokens) for e in batch) * len(batch) <= 200 or len(batch) == 1
        assert len(batches) < len(examples) / 2
    orders = [[[e.row.id for e in b] for b in bucket(examples, 200, seed)] for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]


def test_an_example_longer_than_a_batch_gets_one_of_its_own(examples: list[Example]) -> None:
    assert [len(batch) for batch in bucket(examples, 10, 0)] == [1] * len(examples)


def test_a_choice_just_reaches_its_budget(examples: list[Example]) -> None:
    for budget in (1, 40, 100, 10**6):
        chosen = choose(examples, budget, seed=3)
        spent = sum(e.response_length for e in chosen)
        assert spent - chosen[-1].response_length < budget
        assert spent >= budget or len(chosen) == len(examples)
        assert len({e.row.id for e in chosen}) == len(chosen)
    picks = [[e.row.id for e in choose(examples, 60, seed)] for seed in (1, 1, 2)]
    assert picks[0] == picks[1] != picks[2]
    assert choose(examples, 0, seed=1) == []


@pytest.fixture(scope="module")
def labels(tokenizer: Any) -> list[Example]:  # noqa: ANN401
    """Three bare labels for every long answer."""
    said = ["Yes", "No", "x" * 39, "Because it is written in the third article of the law."]
    rows = [Row(str(n), f"Question {n}?", said[n % 4]) for n in range(400)]
    return [example for row in rows if (example := tokenise(tokenizer, row, 64))]


def short_ones(examples: Sequence[Example]) -> int:
    return sum(len(e.row.response) < 40 for e in examples)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.29, 0.5, 0.75])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_choice_keeps_to_its_share_of_short_responses(
    labels: list[Example], share: float, seed: int
) -> None:
    chosen = choose(labels, 800, seed, short_share=share)
    spent = sum(e.response_length for e in chosen)
    assert 800 <= spent < 800 + chosen[-1].response_length
    assert len({e.row.id for e in chosen}) == len(chosen)
    assert share * len(chosen) - 2 < short_ones(chosen) <= share * len(chosen)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_share_of_one_chooses_as_if_there_were_none(labels: list[Example], seed: int) -> None:
    expected: list[Example] = []
    order = list(labels)
    random.Random(seed).shuffle(order)
    while sum(e.response_length for e in expected) < 500:
        expected.append(order[len(expected)])
    assert choose(labels, 500, seed, short_share=1.0) == expected == choose(labels, 500, seed)
    assert short_ones(expected) > 0.5 * len(expected)


@pytest.mark.parametrize("seed", range(4))
def test_short_responses_that_came_too_early_are_taken_when_the_budget_needs_them(
    labels: list[Example], seed: int
) -> None:
    chosen = choose(labels, 10**6, seed, short_share=0.6)
    long_ones = len(labels) - short_ones(labels)
    assert len(chosen) - short_ones(chosen) == long_ones == 100
    assert short_ones(chosen) == 150
    assert short_ones(choose(labels, 10**6, seed, short_share=0.0)) == 0


def test_a_split_keeps_equal_prompts_together_and_near_its_share() -> None:
    rows = [Row(str(n), f"prompt {n // 2}", "x") for n in range(4000)]
    train, held = split_rows(rows, 0.1, seed=0)
    assert sorted(r.id for r in (*train, *held)) == sorted(r.id for r in rows)
    assert not {r.prompt for r in train} & {r.prompt for r in held}
    assert 0.07 < len(held) / len(rows) < 0.13
    assert split_rows(list(reversed(rows)), 0.1, seed=0)[1] == held[::-1]
    assert split_rows(rows, 0.1, seed=1)[1] != held
    assert split_rows(rows, 0.0, seed=0) == (rows, [])


def test_an_example_is_the_templates_prompt_then_the_response_and_its_end(
    tokenizer: Any,  # noqa: ANN401
) -> None:
    example = tokenise(tokenizer, Row("1", "Why?", "Because."), 100)
    assert example is not None
    prompt = tokenizer.decode(example.tokens[: example.prompt_length])
    assert prompt.endswith("<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n")
    assert tokenizer.decode(example.tokens[example.prompt_length :]) == "Because.<|im_end|>"


def test_a_long_response_is_cut_and_a_long_prompt_refused(tokenizer: Any) -> None:  # noqa: ANN401
    example = tokenise(tokenizer, Row("1", "Why?", "Because. " * 90), 70)
    assert example is not None and len(example.tokens) == 70
    assert example.tokens[-1] != tokenizer.eos_token_id
    assert tokenise(tokenizer, Row("1", "Why? " * 90, "Because."), 70) is None


def write_lines(path: Path, *rows: object) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_rows_are_read_with_their_provenance(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "a.jsonl",
        {"prompt": "p", "response": "r", "source": "s", "license": "MIT", "lang": "de", "more": 1},
        "",
        {"id": 7, "prompt": "a\u2028b", "response": "c\x85d\x0ce"},
        {"prompt": "no answer", "response": None},
        {"prompt": "no answer"},
    )
    assert read_rows([path]) == [
        Row("a.jsonl:1", "p", "r", "s", "MIT", "de"),
        Row("7", "a\u2028b", "c\x85d\x0ce"),
    ]


def test_rows_of_excluded_licences_are_left_out(tmp_path: Path) -> None:
    licenses = ["MIT", "Debian-FAQ copyleft", "Artistic-1.0-Perl OR GPL-1.0-or-later", ""]
    rows = [{"prompt": "p", "response": "r", "license": text} for text in licenses]
    path = write_lines(tmp_path / "a.jsonl", *rows)
    kept = read_rows([path], exclude_licenses=["debian", "ARTISTIC"])
    assert [row.license for row in kept] == ["MIT", ""]
    assert [row.license for row in read_rows([path])] == licenses
    named = read_rows([path], exclude_licenses=["unnamed"])
    assert [row.license for row in named] == licenses[:-1]


def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'\xef\xbb\xbf{"prompt": "p", "response": "r"}\r\n')
    assert read_rows([tmp_path / "a.jsonl"]) == [Row("a.jsonl:1", "p", "r")]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "not JSON"),
        ("[]", "needs an object with the text keys `prompt` and `response`"),
        ('"text"', "needs an object"),
        ({"response": "r"}, "needs an object"),
        ({"prompt": 5, "response": "r"}, "`prompt` must be a text, not 5"),
        ({"prompt": "p", "response": ["r"]}, r"`response` must be a text, not \[\"r\"\]"),
        ({"prompt": "p", "response": "r", "license": 3}, "`license` must be a text, not 3"),
        (r'{"prompt": "a \ud83d b", "response": "r"}', "`prompt` holds half of a surrogate pair"),
    ],
)
def test_a_bad_line_is_named_by_file_and_number(tmp_path: Path, line: object, reason: str) -> None:
    good = {"prompt": "p", "response": "r"}
    path = write_lines(tmp_path / "bad.jsonl", good, "", line, good)
    with pytest.raises(ExampleError, match=f"^bad.jsonl:3: {reason}"):
        read_rows([path])


def test_a_file_that_is_not_utf_8_is_named(tmp_path: Path) -> None:
    (tmp_path / "latin.jsonl").write_bytes('{"prompt": "é"}'.encode("latin-1"))
    with pytest.raises(ExampleError, match=r"latin.jsonl: not UTF-8"):
        read_rows([tmp_path / "latin.jsonl"])


INVOCATION = (1, 520)


def test_an_adapter_that_waits_has_the_loss_of_pefts_activated_lora(
    tiny_dir: Path, tmp_path: Path, examples: list[Example]
) -> None:
    """Rows of different lengths, one of them without the invocation, through PEFT's own forward."""
    options = replace(OPTIONS, invocation=INVOCATION)
    lessons = Lessons(examples[:24], examples[36:])
    train_adapter(fresh(tiny_dir), lessons, tmp_path / "late", options)
    config = json.loads((tmp_path / "late" / "adapter_config.json").read_text())
    assert config["alora_invocation_tokens"] == list(INVOCATION)
    truth = PeftModel.from_pretrained(fresh(tiny_dir), tmp_path / "late").eval()
    del config["alora_invocation_tokens"]
    (tmp_path / "late" / "adapter_config.json").write_text(json.dumps(config))
    ours = PeftModel.from_pretrained(fresh(tiny_dir), tmp_path / "late").eval()
    silent = replace(examples[1], tokens=tuple(t for t in examples[1].tokens if t != 520))
    silent = replace(silent, prompt_length=examples[1].prompt_length - 1)
    batch = [examples[0], silent, examples[4]]
    assert last_occurrence(silent.tokens, INVOCATION) is None
    expected: list[float] = []
    for example in batch:
        with torch.inference_mode():
            logits = truth(input_ids=torch.tensor([example.tokens])).logits[0].double()
        for position in range(example.prompt_length, len(example.tokens)):
            logps = torch.log_softmax(logits[position - 1], dim=-1)
            expected.append(-float(logps[example.tokens[position]]))
    found = token_losses(ours, batch, INVOCATION).tolist()
    assert found == pytest.approx(expected, abs=1e-5)
    always = token_losses(ours, batch).tolist()
    assert always != pytest.approx(expected, abs=1e-2)


def test_a_device_that_is_not_here_is_named() -> None:
    with pytest.raises(DeviceError, match="'abacus' is no device"):
        choose_device("abacus")
    with pytest.raises(DeviceError, match="'cuda:99' is not here"):
        choose_device("cuda:99")


@pytest.fixture(scope="module")
def other_rows(tokenizer: Any) -> list[Example]:  # noqa: ANN401
    rows = [Row(str(n), f"How many are {n} and {n}?", f"They are {2 * n}.") for n in range(40)]
    return [e for row in rows if (e := tokenise(tokenizer, row, 64))]


def test_the_divergence_is_the_sum_over_the_vocabulary_position_by_position(
    tiny_dir: Path, tmp_path: Path, examples: list[Example]
) -> None:
    trained(tiny_dir, examples, tmp_path / "adapter")
    model = PeftModel.from_pretrained(fresh(tiny_dir), tmp_path / "adapter").eval()
    base = fresh(tiny_dir).eval()
    expected = []
    for example in examples[:3]:
        with torch.no_grad():
            ids = torch.tensor([example.tokens])
            before, after = (m(ids).logits[0].double().log_softmax(-1) for m in (base, model))
        for at in range(example.prompt_length - 1, len(example.tokens) - 1):
            expected.append(float((before[at].exp() * (before[at] - after[at])).sum()))
    assert min(expected) > 1e-3
    found = divergences(model, examples[:3])
    assert found.requires_grad
    assert found.tolist() == pytest.approx(expected, rel=1e-3, abs=1e-5)
    mean = mean_divergence(model, examples[:3], 64)
    assert mean == pytest.approx(sum(expected) / len(expected), rel=1e-3)


def test_rows_to_leave_alone_are_left_alone_and_the_others_learnt(
    tiny_dir: Path, tmp_path: Path, examples: list[Example], other_rows: list[Example]
) -> None:
    apart = {}
    for weight in (1e-6, 5.0):
        lessons = Lessons(examples[:36], examples[36:], other_rows[:32], other_rows[32:])
        options = replace(OPTIONS, keep_weight=weight)
        report = train_adapter(fresh(tiny_dir), lessons, tmp_path / str(weight), options)
        assert report.loss_after < 0.6 * report.loss_before
        assert report.kept == 32
        apart[weight] = report.divergence
    assert apart[5.0] < 0.3 * apart[1e-6]


def test_a_system_message_is_context_and_not_learnt(tokenizer: Any) -> None:  # noqa: ANN401
    row = Row("1", "Who?", "Ada.", system="Answer from the sources below.")
    example = tokenise(tokenizer, row, 100)
    assert example is not None
    shown = tokenizer.decode(example.tokens[: example.prompt_length])
    assert "<|im_start|>system\nAnswer from the sources below.<|im_end|>" in shown
    assert tokenizer.decode(example.tokens[example.prompt_length :]).startswith("Ada.")
