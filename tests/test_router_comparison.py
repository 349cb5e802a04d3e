"""Figures of two versions side by side, and the log that they are made of."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from router.comparison import Pair, agreement, by_expert, divergence, mean, wilson
from router.comparison_log import ComparisonLog, read_pairs
from router.lineup import VersionError

PAIR = Pair("shadow", "aaa", "bbb", 1.5, "code", "code", ("code", "legal"), ("legal", "code"), 0.25)


@pytest.mark.parametrize(("hits", "count"), [(0, 1), (1, 1), (0, 20), (7, 9), (500, 1000), (3, 3)])
def test_wilsons_bounds_are_where_the_score_test_turns(hits: int, count: int) -> None:
    found = wilson(hits, count)

    def score(p: float) -> float:
        return abs(hits / count - p) / math.sqrt(p * (1 - p) / count)

    # The interval is the set of shares that the normal score test at 5 % does not reject.
    grid = np.linspace(1e-6, 1 - 1e-6, 200_001)
    kept = [p for p in grid if score(float(p)) <= 1.959964]
    assert found.value == hits / count
    assert found.low == pytest.approx(0.0 if hits == 0 else min(kept), abs=1e-5)
    assert found.high == pytest.approx(1.0 if hits == count else max(kept), abs=1e-5)


def test_wilsons_interval_holds_the_share_in_95_of_100_draws() -> None:
    draws = np.random.default_rng(0).binomial(60, 0.9, size=4000)
    held = [(w := wilson(int(hits), 60)).low <= 0.9 <= w.high for hits in draws]
    assert 0.93 < float(np.mean(held)) < 0.98


def test_the_mean_has_its_normal_interval() -> None:
    values = np.random.default_rng(1).exponential(size=50)
    found = mean(values.tolist())
    half = 1.959964 * values.std(ddof=1) / np.sqrt(50)
    assert found.value == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half))
    assert mean([0.3]).high == math.inf


def test_divergence_is_that_of_the_sum() -> None:
    p, q = np.array([0.7, 0.2, 0.1]), np.array([0.5, 0.25, 0.25])
    names = ("a", "b", "c")
    found = divergence(dict(zip(names, p, strict=True)), dict(zip(names, q, strict=True)))
    assert found == pytest.approx(float((p * np.log(p / q)).sum()))
    assert divergence({"a": 1.0, "b": 0.0}, {"a": 1.0, "b": 0.0}) == 0.0
    assert divergence({"a": 1.0}, {"b": 1.0}) == pytest.approx(math.log(1e12))


def test_agreement_counts_leads_and_sets() -> None:
    moved = replace(PAIR, other_lead="legal", other_chosen=("legal",), divergence=0.75)
    other = replace(PAIR, lead="legal", other_lead="general", other_chosen=("general",))
    found = agreement([PAIR, PAIR, moved, other])
    assert found.pairs == 4
    assert (found.same_lead.value, found.same_set.value) == (0.5, 0.5)
    assert found.divergence.value == pytest.approx((0.25 * 3 + 0.75) / 4)
    assert found.moved == {"legal": 1, "general": 1}
    rows = by_expert([other, PAIR, moved, PAIR])
    assert [(name, row.pairs, row.same_lead.value) for name, row in rows.items()] == [
        ("code", 3, pytest.approx(2 / 3)),
        ("legal", 1, 0.0),
    ]
    with pytest.raises(ValueError, match="nothing to compare"):
        agreement([])


def numbered(count: int, start: int = 0) -> list[Pair]:
    return [replace(PAIR, at=float(n)) for n in range(start, start + count)]


def test_what_is_logged_is_read_back(tmp_path: Path) -> None:
    log = ComparisonLog(tmp_path / "log")
    for found in numbered(3):
        log.add(found)
    assert list(read_pairs(tmp_path / "log")) == numbered(3)
    assert list(read_pairs(tmp_path / "nowhere")) == []


def test_a_log_keeps_the_latest_pairs_and_no_more(tmp_path: Path) -> None:
    log = ComparisonLog(tmp_path, lines=10)
    for found in numbered(95):
        log.add(found)
    kept = sorted(read_pairs(tmp_path), key=lambda found: found.at)
    assert kept == numbered(15, start=80)
    assert len(list(tmp_path.iterdir())) == 2


def test_old_processes_files_go_when_there_are_too_many(tmp_path: Path) -> None:
    for number in range(7):
        ComparisonLog(tmp_path, files=4).add(replace(PAIR, at=float(number)))
    assert {found.at for found in read_pairs(tmp_path)} == {3.0, 4.0, 5.0, 6.0}


def test_a_line_that_is_being_written_is_left_out_and_a_wrong_one_named(tmp_path: Path) -> None:
    ComparisonLog(tmp_path).add(PAIR)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:30])
    assert list(read_pairs(tmp_path)) == [PAIR]
    path.write_bytes(whole + b'{"role": "shadow"}\n')
    with pytest.raises(VersionError, match=f"{path.name}:2"):
        list(read_pairs(tmp_path))
