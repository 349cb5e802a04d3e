"""`collegium eval experts` on the tiny model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import pytest
from tiny_adapters import write_adapters

from experts.examples import read_rows, split_rows
from orchestrator.cli.root import cli


@pytest.fixture(scope="module")
def written(tiny_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_adapters(tiny_dir, tmp_path_factory.mktemp("adapters"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "rows.jsonl"
    rows = [{"prompt": f"Where is {n}?", "response": "x" * (n % 9 + 1)} for n in range(300)]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def measure(base: Path, out: Path, *arguments: str) -> list[dict[str, Any]]:
    always = ["eval", "experts", "--base", str(base), "--out", str(out)]
    cli.main([*always, *arguments], standalone_mode=False)
    cells: list[dict[str, Any]] = json.loads(out.read_text())
    return cells


def test_the_matrix_is_printed_and_written(
    tiny_dir: Path,
    written: dict[str, Path],
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    adapters = [f"--adapter={name}={folder}" for name, folder in written.items()]
    cells = measure(
        tiny_dir, tmp_path / "cells.json", *adapters, f"--set=all={data}", "--rows", "7"
    )
    assert [cell["model"] for cell in cells] == ["base", *written]
    keys = ["model", "domain", "rows", "tokens", "loss", "change", "low", "high"]
    assert [list(cell) for cell in cells] == [keys] * 4
    assert {(cell["domain"], cell["rows"]) for cell in cells} == {("all", 7)}
    assert len({cell["loss"] for cell in cells}) == 4
    said = capsys.readouterr()
    for cell in cells:
        assert cell["model"] in said.out and f"{cell['loss']:.4f}" in said.out
    assert "green on all" in said.err and "green on all" not in said.out


@pytest.mark.parametrize(
    ("options", "share", "seed", "shortest"),
    [
        ((), 0.03, 0, 0),
        (("--held-out", "0.2"), 0.2, 0, 0),
        (("--held-out", "0.2", "--split-seed", "4"), 0.2, 4, 0),
        (("--held-out", "0.3", "--min-response", "6"), 0.3, 0, 6),
    ],
)
def test_a_held_out_set_is_what_training_kept_back(
    tiny_dir: Path,
    written: dict[str, Path],
    data: Path,
    tmp_path: Path,
    options: tuple[str, ...],
    share: float,
    seed: int,
    shortest: int,
) -> None:
    cells = measure(
        tiny_dir,
        tmp_path / "cells.json",
        f"--adapter=red={written['red']}",
        f"--held-out-set=kept={data}",
        *options,
    )
    kept = [r for r in split_rows(read_rows([data]), share, seed)[1] if len(r.response) >= shortest]
    assert 2 < len(kept) < 100
    assert {cell["rows"] for cell in cells} == {len(kept)}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "give at least one --set NAME=FILE or --held-out-set"),
        (("--set", "x"), "'x' must have the form NAME=PATH"),
        (("--set", "x=nowhere.jsonl"), "x=nowhere.jsonl: there is no such file"),
        (("--set", "x={data}", "--set", "x={data}"), "x is given twice"),
        (("--set", "x={data}", "--held-out-set", "x={data}"), "x is given as --set and as --held"),
        (("--set", "x={data}", "--adapter", "base={red}"), "'base' means the bare base model"),
        (("--set", "x={data}", "--adapter", "red=nowhere"), "there is no adapter_config.json"),
        (("--set", "x={data}", "--adapter", "red={red}", "--max-length", "5"), "no row of x"),
    ],
)
def test_what_cannot_be_measured_is_one_readable_message(
    tiny_dir: Path,
    written: dict[str, Path],
    data: Path,
    tmp_path: Path,
    arguments: tuple[str, ...],
    said: str,
) -> None:
    filled = [argument.format(data=data, red=written["red"]) for argument in arguments]
    with pytest.raises(click.ClickException) as caught:
        measure(tiny_dir, tmp_path / "cells.json", *filled)
    assert said in caught.value.format_message()
    assert not (tmp_path / "cells.json").exists()


def test_the_help_teaches_what_the_limits_do(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["eval", "experts", "--help"], standalone_mode=False)
    said = " ".join(capsys.readouterr().out.split())
    for part in ("whose form alone is quickly learnt", "A longer response is measured up to there"):
        assert part in said
