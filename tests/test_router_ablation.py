"""The ablation, in a small world in which it is known what each part is worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
import pytest
from routing_data import EXPERTS, prompts, word_vectors

from router.ablation import FOLLOW_UPS, Questions, Variant, ablate, variants
from router.ablation_report import ablation_section
from router.dataset import DatasetError, LabelledPrompt
from router.figures import plain
from router.fitting import NGRAM_SCALE, STATISTICS_SCALE, VECTOR_SCALE
from router.memory import EncoderMemory
from router.plots import can_plot, draw
from router.router import Router
from router.training import train_gate
from router.trials import run_trials

OWN = "by hand"
EPOCHS = 10


def taught() -> list[LabelledPrompt]:
    """Rows of which those on law come from one source alone."""
    rows = prompts(320, seed=1)
    return [replace(row, source=OWN) if "legal" in row.labels else row for row in rows]


def asked() -> list[LabelledPrompt]:
    return prompts(120, seed=2)


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    memory = EncoderMemory(word_vectors)
    return plain(  # type: ignore[no-any-return]
        ablate(
            taught(),
            asked(),
            memory,
            "general",
            sources=(OWN, "never seen"),
            per_domain=4,
            resamples=50,
            epochs=EPOCHS,
        )
    )


def test_every_part_is_left_out_once(found: dict[str, Any]) -> None:
    assert list(found) == [
        *("whole", "sentence vector", "n-grams", "shares", "history", "parts", "variations"),
        "own rows",
    ]
    assert found["own rows"]["what"] == f"training rows of {OWN}"


def test_the_whole_differs_from_itself_by_nothing(found: dict[str, Any]) -> None:
    for figure in ("accuracy", "macro_f1", "ece", "flips", "follow_ups"):
        assert found["whole"][figure]["change"] == {"value": 0.0, "low": 0.0, "high": 0.0}


def test_the_accuracy_of_the_whole_is_that_of_a_gate_trained_alone(found: dict[str, Any]) -> None:
    gate, _ = train_gate(taught(), word_vectors, epochs=EPOCHS)
    rows = [row for row in asked() if len(row.labels) == 1]
    trials = run_trials(Router(gate, word_vectors, EXPERTS, "general"), rows)
    value = found["whole"]["accuracy"]["value"]["value"]
    assert value == pytest.approx(trials.right.mean(), abs=1e-6)
    spanish = [right for row, right in zip(rows, trials.right, strict=True) if row.language == "es"]
    assert found["whole"]["languages"]["es"] == pytest.approx(np.mean(spanish), abs=1e-6)


def test_a_change_is_the_difference_of_the_values(found: dict[str, Any]) -> None:
    for one in found.values():
        for figure in ("accuracy", "macro_f1", "ece", "flips", "follow_ups"):
            difference = one[figure]["value"]["value"] - found["whole"][figure]["value"]["value"]
            assert one[figure]["change"]["value"] == pytest.approx(difference, abs=2e-6)
            assert one[figure]["change"]["low"] <= one[figure]["change"]["high"]


def test_without_history_follow_ups_are_lost_and_nothing_else(found: dict[str, Any]) -> None:
    history = found["history"]
    assert history["follow_ups"]["change"]["value"] < -0.2
    assert found["whole"]["follow_ups"]["value"]["value"] > 0.6
    for figure in ("accuracy", "macro_f1", "ece", "flips"):
        assert history[figure] == found["whole"][figure]


def test_without_the_rows_by_hand_their_domain_suffers(found: dict[str, Any]) -> None:
    assert found["own rows"]["accuracy"]["change"]["value"] < -0.2
    assert found["own rows"]["macro_f1"]["change"]["value"] < -0.2


def test_short_texts_are_read_alike_with_and_without_parts(found: dict[str, Any]) -> None:
    assert found["parts"]["accuracy"] == found["whole"]["accuracy"]


@pytest.mark.parametrize(
    ("scales", "silent"),
    [
        ((0.0, NGRAM_SCALE, STATISTICS_SCALE), slice(0, 32)),
        ((VECTOR_SCALE, 0.0, STATISTICS_SCALE), slice(32, 32 + 4096)),
        ((VECTOR_SCALE, NGRAM_SCALE, 0.0), slice(32 + 4096, None)),
    ],
)
def test_a_block_that_is_left_out_has_no_weight(
    scales: tuple[float, float, float], silent: slice
) -> None:
    gate, _ = train_gate(prompts(120), word_vectors, epochs=2, variations=False, scales=scales)
    heard = np.ones(gate.weight.shape[1], dtype=np.bool_)
    heard[silent] = False
    assert not gate.weight[:, silent].any()
    assert gate.weight[:, heard].any()


def test_a_variant_reads_what_it_has() -> None:
    turns = [("user", "a" * 3000), ("assistant", "b"), ("user", "c" * 3000)]
    assert Variant("x", "").conversation(turns) == turns
    assert Variant("x", "", history=False).conversation(turns) == [turns[2]]
    short = Variant("x", "", longest=1000).conversation(turns)
    assert [len(text) for _, text in short] == [1000, 1, 1000]
    rows = [LabelledPrompt("t", ("code",), "en", "s (de)", "MIT")]
    assert Variant("x", "", sources=frozenset({"s"})).lessons(rows) == []
    assert Variant("x", "").lessons(rows) == rows
    assert [one.name for one in variants(())][-1] == "variations"


def test_questions_are_the_same_for_everybody() -> None:
    rows = asked()
    questions = Questions.of(rows, EXPERTS, 3, seed=0)
    assert questions == questions
    again = Questions.of(rows[::-1], EXPERTS, 3, seed=0)
    assert {row.text for row in again.sampled} == {row.text for row in questions.sampled}
    texts = dict(zip((r.text for r in questions.sampled), questions.changed, strict=True))
    others = dict(zip((r.text for r in again.sampled), again.changed, strict=True))
    assert texts == others
    assert {turns[-1][1] for turns in questions.follow_ups} <= set(FOLLOW_UPS)
    assert all(len(row.labels) == 1 for row in questions.followed)


def test_a_label_that_nobody_taught_is_named() -> None:
    row = LabelledPrompt("is it contagious?", ("medicine",), "en", "s", "MIT")
    with pytest.raises(DatasetError, match="medicine"):
        ablate(prompts(80), [row], counting, "general")


def counting(texts: Sequence[str]) -> npt.NDArray[np.float32]:
    raise AssertionError(f"{len(texts)} texts were encoded before the rows were looked at")


def test_the_page_tells_values_and_changes(found: dict[str, Any]) -> None:
    page = ablation_section(found)
    assert page.startswith("## Ablation\n")
    change = found["history"]["follow_ups"]
    cell = f"{change['value']['value']:.4f} ({change['change']['value']:+.4f} ["
    (line,) = [line for line in page.splitlines() if line.startswith("| without history")]
    assert cell in line
    assert "| whole | nothing left out | " in page
    assert ablation_section(None) == ""


@pytest.mark.skipif(not can_plot(), reason="needs matplotlib")
def test_the_plot_shows_every_part(found: dict[str, Any], tmp_path: Path) -> None:
    empty = {"calibration": {"bins": [], "ece": 0.0}, "regret": None, "robustness": None}
    curve = {"coverage": [], "risk": []}
    names = draw({**empty, "risk_coverage": curve, "confusion": {}, "ablation": found}, tmp_path)
    assert "ablation.svg" in names
    ElementTree.parse(tmp_path / "ablation.svg")
    without = draw({**empty, "risk_coverage": curve, "confusion": {}}, tmp_path)
    assert "ablation.svg" not in without
