"""The table of experts' losses: kept row by row, read back exactly, refused where it is not one."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest

from router.losses import AnswerLoss, LossError, LossFile, LossTable, read_losses

EXPERTS, MARKS = ("general", "code"), ("aa", "bb")


def written(path: Path) -> LossFile:
    file = LossFile(path, EXPERTS, MARKS)
    file.add("What is a list?", AnswerLoss((2.0, 1.25), 12))
    file.add("Wer bist du?", AnswerLoss((1.5, 1.75), 3))
    return file


def test_what_was_added_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "losses.jsonl"
    file = written(path)
    assert read_losses(path) == file.table
    assert file.table.of("  what IS a list ") == AnswerLoss((2.0, 1.25), 12)
    assert file.table.of("another") is None


def test_a_table_gives_the_columns_asked_for(tmp_path: Path) -> None:
    table = written(tmp_path / "losses.jsonl").table
    found = table.matrix(["Wer bist du?", "unknown"], ["code", "general"])
    assert found[0].tolist() == [1.75, 1.5]
    assert np.isnan(found[1]).all()
    assert table.lengths(["unknown", "What is a list?"]).tolist() == [0, 12]
    with pytest.raises(LossError, match="no losses of legal"):
        table.matrix(["Wer bist du?"], ["legal"])


def test_a_run_that_was_cut_short_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "losses.jsonl"
    written(path)
    whole = path.read_bytes()
    for cut in range(1, len(whole.split(b"\n")[-2])):
        path.write_bytes(whole[:-cut])
        again = LossFile(path, EXPERTS, MARKS)
        assert set(again.table.rows) < set(read_losses_of(whole, tmp_path).rows)
        again.add("Wer bist du?", AnswerLoss((1.5, 1.75), 3))
        assert path.read_bytes() == whole


def test_going_on_writes_nothing_anew(tmp_path: Path) -> None:
    path = tmp_path / "losses.jsonl"
    written(path)
    os.utime(path, (1.0, 1.0))
    LossFile(path, EXPERTS, MARKS)
    assert path.stat().st_mtime == 1.0


def read_losses_of(content: bytes, folder: Path) -> LossTable:
    path = folder / "whole.jsonl"
    path.write_bytes(content)
    return read_losses(path)


def test_losses_of_other_weights_are_not_added_to(tmp_path: Path) -> None:
    path = tmp_path / "losses.jsonl"
    written(path)
    with pytest.raises(LossError, match="other weights"):
        LossFile(path, EXPERTS, ("aa", "cc"))


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("[1]", ":2: expected a JSON object"),
        ("{", ":2: not a JSON object"),
        ('{"key": "1f", "tokens": 3, "losses": [1]}', "of 2 experts"),
        ('{"key": "1f", "tokens": 3, "losses": [1, "a"]}', "of 2 experts"),
        ('{"key": "xyz", "tokens": 3, "losses": [1, 2]}', "hexadecimal"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, line: str, named: str) -> None:
    path = tmp_path / "losses.jsonl"
    LossFile(path, EXPERTS, MARKS)
    with path.open("a") as file:
        file.write(line + "\n")
    with pytest.raises(LossError, match=named):
        read_losses(path)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "losses.jsonl"
    path.write_text('{"prompt": "hello"}\n')
    with pytest.raises(LossError, match="`experts` and `marks`"):
        LossFile(path, EXPERTS, MARKS)


def test_losses_keep_six_digits(tmp_path: Path) -> None:
    file = LossFile(tmp_path / "losses.jsonl", EXPERTS, MARKS)
    file.add("x", AnswerLoss((math.pi, math.e), 1))
    kept = read_losses(tmp_path / "losses.jsonl").of("x")
    assert kept is not None
    assert kept.losses == pytest.approx((math.pi, math.e), abs=1e-6)
