"""The loss matrix against PEFT, and its intervals against a bootstrap written out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from peft import PeftModel
from tiny_adapters import write_adapters
from transformers import AutoModelForCausalLM, AutoTokenizer

from experts.adapters import Adapter, load_adapter
from experts.evaluation import Cell, EvaluationError, loss_matrix
from experts.examples import Example, Row, tokenise
from experts.gated import decoder_linears
from experts.losses import mean_loss, row_losses


@pytest.fixture(scope="module")
def written(tiny_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_adapters(tiny_dir, tmp_path_factory.mktemp("adapters"))


@pytest.fixture(scope="module")
def adapters(tiny_dir: Path, written: dict[str, Path]) -> list[Adapter]:
    layers = decoder_linears(AutoModelForCausalLM.from_pretrained(tiny_dir))
    linears = {path: (layer.in_features, layer.out_features) for path, layer in layers.items()}
    return [load_adapter(name, folder, linears) for name, folder in written.items()]


@pytest.fixture(scope="module")
def domains(tiny_dir: Path) -> dict[str, list[Example]]:
    tokenizer = AutoTokenizer.from_pretrained(tiny_dir)
    rows = [Row(str(n), f"What is {n}?", f"It is {n}." + " Truly." * (n % 4)) for n in range(14)]
    found = [example for row in rows if (example := tokenise(tokenizer, row, 64))]
    return {"numbers": found[:9], "rest": found[9:]}


@pytest.fixture(scope="module")
def matrix(
    tiny_dir: Path, adapters: list[Adapter], domains: dict[str, list[Example]]
) -> dict[tuple[str, str], Cell]:
    model = AutoModelForCausalLM.from_pretrained(tiny_dir)
    cells = loss_matrix(model, adapters, domains, batch_tokens=150, seed=3)
    return {(cell.model, cell.domain): cell for cell in cells}


def test_the_losses_are_those_of_peft(
    matrix: dict[tuple[str, str], Cell],
    tiny_dir: Path,
    written: dict[str, Path],
    domains: dict[str, list[Example]],
) -> None:
    assert len(matrix) == 4 * 2
    for domain, examples in domains.items():
        base = mean_loss(AutoModelForCausalLM.from_pretrained(tiny_dir), examples, 64)
        assert matrix["base", domain].loss == pytest.approx(base, abs=1e-4)
        assert matrix["base", domain].change == matrix["base", domain].low == 0
        for name, folder in written.items():
            plain = AutoModelForCausalLM.from_pretrained(tiny_dir)
            adapted = mean_loss(PeftModel.from_pretrained(plain, folder), examples, 64)
            cell = matrix[name, domain]
            assert cell.loss == pytest.approx(adapted, abs=1e-4)
            assert cell.change == pytest.approx(adapted / base - 1, abs=1e-4)
            assert abs(adapted - base) > 0.002
            assert cell.low < cell.change < cell.high
            assert (cell.rows, cell.tokens) == (
                len(examples),
                sum(e.response_length for e in examples),
            )


def test_the_interval_is_that_of_a_paired_bootstrap_over_rows(
    matrix: dict[tuple[str, str], Cell],
    tiny_dir: Path,
    written: dict[str, Path],
    domains: dict[str, list[Example]],
) -> None:
    examples = domains["numbers"]
    plain = AutoModelForCausalLM.from_pretrained(tiny_dir)
    base = dict((e.row.id, loss) for e, loss in row_losses(plain, examples, 64))
    adapted_model = PeftModel.from_pretrained(plain, written["green"])
    adapted = dict((e.row.id, loss) for e, loss in row_losses(adapted_model, examples, 64))
    rng = np.random.default_rng(3)
    changes = []
    for _ in range(10_000):
        picked = [examples[n].row.id for n in rng.integers(0, len(examples), len(examples))]
        changes.append(sum(adapted[i] for i in picked) / sum(base[i] for i in picked) - 1)
    low, high = np.quantile(changes, [0.025, 0.975])
    assert matrix["green", "numbers"].low == pytest.approx(low, abs=1e-3)
    assert matrix["green", "numbers"].high == pytest.approx(high, abs=1e-3)


def test_a_domain_without_rows_is_named(
    tiny_dir: Path, adapters: list[Adapter], domains: dict[str, list[Example]]
) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_dir)
    with pytest.raises(EvaluationError, match="no row of empty is left to measure"):
        loss_matrix(model, adapters, domains | {"empty": []})


def test_an_adapter_that_is_called_as_the_base_is_refused(
    tiny_dir: Path, adapters: list[Adapter], domains: dict[str, list[Example]]
) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_dir)
    with pytest.raises(EvaluationError, match="'base' means the bare base model"):
        loss_matrix(model, [Adapter("base", adapters[0].weights)], domains)
