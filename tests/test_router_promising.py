"""Promises made anew for a gate whose experts were trained again."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from test_router_training import prompts, word_vectors

from router.card import write_promised_card
from router.conformal import METADATA_KEY, promised_confidence
from router.dataset import DatasetError, LabelledPrompt, fingerprint
from router.gate import Gate
from router.losses import AnswerLoss, LossTable
from router.policy import Policy
from router.promising import is_apart, with_promises
from router.router import Router
from router.training import train_gate


def table(rows: Sequence[LabelledPrompt], *, right: bool) -> LossTable:
    """The expert that the label names loses least; or, where not `right`, another one."""
    names = ("code", "general", "legal")
    found = LossTable(names, ("a", "b", "c"))
    for row in rows:
        losses = [1.0 if (name in row.labels) == right else 2.0 for name in names]
        found.rows[fingerprint(row.text)] = AnswerLoss(tuple(losses), 9)
    return found


@pytest.fixture(scope="module")
def rows() -> list[LabelledPrompt]:
    return [row for row in prompts(1500) if len(row.labels) == 1]


@pytest.fixture(scope="module")
def gate(rows: list[LabelledPrompt]) -> Gate:
    return train_gate(rows, word_vectors, epochs=20, encoder_name="words")[0]


def test_experts_that_lose_least_where_the_gate_leads_are_promised(
    gate: Gate, rows: list[LabelledPrompt], tmp_path: Path
) -> None:
    promised = with_promises(gate, rows, word_vectors, "general", table(rows, right=True))
    promised.save(tmp_path)
    again = Gate.load(tmp_path)
    assert again.version == gate.version
    assert promised_confidence(again.metadata, 0.2) == 0.0
    router = Router(gate, word_vectors, gate.labels, "general", Policy(min_confidence=0.0))
    apart = [row for row in rows if is_apart(row.text, 0)]
    lead = [router.route([("user", row.text)]).candidates[0].name for row in apart]
    assert again.metadata[METADATA_KEY]["rows"] == sum(name != "general" for name in lead)


def test_a_prompt_that_comes_again_is_no_further_evidence(
    gate: Gate, rows: list[LabelledPrompt]
) -> None:
    losses = table(rows, right=True)
    once = with_promises(gate, rows, word_vectors, "general", losses)
    twice = with_promises(gate, [*rows, *rows], word_vectors, "general", losses)
    assert twice.metadata[METADATA_KEY] == once.metadata[METADATA_KEY]


def test_the_card_tells_the_promises_of_now_and_only_them(
    gate: Gate, rows: list[LabelledPrompt], tmp_path: Path
) -> None:
    source, folder = tmp_path / "a", tmp_path / "b"
    gate.save(source)
    (source / "README.md").write_text("# Gate\n\nAs it was.\n")
    (source / "LICENSE").write_text("Terms.\n")
    for place, right in ((folder, False), (folder, True)):
        losses = table(rows, right=right)
        promised = with_promises(gate, rows, word_vectors, "general", losses)
        promised.save(place)
        write_promised_card(promised, source if not right else folder, place)
    card = (folder / "README.md").read_text()
    assert card.startswith("# Gate\n\nAs it was.\n\n## Promises\n")
    assert card.count("## Promises") == 1
    assert "| 0.2 | 0.0000 |" in card and "| 0.2 | cannot" not in card
    assert (folder / "LICENSE").read_text() == "Terms.\n"


def test_nothing_is_promised_of_experts_that_lose_most_there(
    gate: Gate, rows: list[LabelledPrompt]
) -> None:
    promised = with_promises(gate, rows, word_vectors, "general", table(rows, right=False))
    assert set(promised.metadata[METADATA_KEY]["thresholds"].values()) == {None}


def test_rows_that_the_gate_was_fitted_to_are_not_read(
    gate: Gate, rows: list[LabelledPrompt]
) -> None:
    apart = [row for row in rows if is_apart(row.text, 0)]
    assert 0.15 < len(apart) / len(rows) < 0.25
    fitted = [row for row in rows if not is_apart(row.text, 0)]
    losses = table(fitted, right=True)
    with pytest.raises(DatasetError, match=rf"of {len(rows)} .* kept {len(apart)} apart \(seed 0"):
        with_promises(gate, rows, word_vectors, "general", losses)
    both = table(rows, right=True)
    for row in fitted:
        both.rows[fingerprint(row.text)] = AnswerLoss((9.0, 9.0, 0.0), 9)
    found = with_promises(gate, rows, word_vectors, "general", both).metadata
    assert json.dumps(found[METADATA_KEY]) == json.dumps(
        with_promises(gate, apart, word_vectors, "general", both).metadata[METADATA_KEY]
    )
    assert np.isfinite(promised_confidence(found, 0.2))
