"""The figures of the right adapter on answers whose best expert is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.right_adapter import Bout, figures, judge

EXPERTS = ("red", "green", "blue", "base")
TOKENS = 40


def bout() -> Bout:
    """Six rows: two of each colour; the sixth is the base's, the fifth nobody's."""
    dice = np.random.default_rng(0)
    best = [0, 0, 1, 0, None, 3]
    losses = []
    for leader in best:
        table = 2.0 + dice.normal(0.0, 0.1, (len(EXPERTS), TOKENS))
        if leader is None:
            table[2] = table[1]
        else:
            table[leader] -= 1.0
        losses.append(table)
    labels = np.array([0, 0, 1, 1, 2, 2])
    choices = {
        "router": np.array([0, 2, 1, 1, 2, 2]),
        "oracle": np.array([0, 0, 1, 0, 2, 3]),
        "by label": labels,
    }
    return Bout(EXPERTS, "base", labels, losses, choices)


def test_rows_without_a_right_adapter_do_not_count() -> None:
    found = judge(bout())
    assert found.counts.tolist() == [True, True, True, True, False, False]
    assert found.base_is_best.tolist() == [False, False, False, False, False, True]


def test_shares_are_of_the_rows_that_count() -> None:
    found = figures(bout(), "router")
    assert (found["rows"], found["counted"], found["base_is_best"]) == (6, 4, 1)
    right = found["right_adapter"]
    assert (right["router"].hits, right["router"].rows) == (2, 4)
    assert right["oracle"].value == 1.0
    assert right["by label"].hits == 3
    assert found["accuracy"]["router"].hits == 5
    assert found["accuracy"]["by label"].value == 1.0


def test_confusions_name_what_was_wanted_and_what_was_chosen() -> None:
    found = figures(bout(), "router")
    assert {(p["wanted"], p["chosen"], p["rows"]) for p in found["missed"]} == {
        ("red", "blue", 1),
        ("red", "green", 1),
    }
    assert found["mislabelled"] == [{"wanted": "red", "chosen": "blue", "rows": 1}]


def test_means_are_over_the_tokens_of_each_answer() -> None:
    these = bout()
    for row, table in enumerate(these.losses):
        assert table is not None
        assert these.means[row] == pytest.approx([sum(tokens) / TOKENS for tokens in table])


def test_a_sub_domain_has_its_own_losses_and_regret() -> None:
    these = bout()
    found = figures(these, "router")["sub_domains"]
    assert list(found) == ["red", "green", "blue"]
    second = these.means[1]
    assert found["red"]["regret"] == pytest.approx((second[2] - second[0]) / 2)
    both = these.means[4:6]
    assert found["blue"]["loss_own"] == pytest.approx(both[:, 2].mean())
    assert found["blue"]["loss_base"] == pytest.approx(both[:, 3].mean())
    assert (found["green"]["counted"], found["green"]["right"]) == (2, 1)
    assert found["green"]["own_is_best"] == 1


def test_rows_that_were_not_measured_are_judged_by_their_labels_alone() -> None:
    these = bout()
    losses = [None if n in (1, 4, 5) else table for n, table in enumerate(these.losses)]
    some = replace(these, losses=losses)
    assert judge(some).counts.tolist() == [True, False, True, True, False, False]
    found = figures(some, "router")
    assert (found["rows"], found["measured"], found["counted"]) == (6, 3, 3)
    assert found["accuracy"]["router"].rows == 6
    assert found["sub_domains"]["red"]["regret"] == 0.0
    assert found["sub_domains"]["blue"]["regret"] is None
    assert found["mislabelled"] == [{"wanted": "red", "chosen": "blue", "rows": 1}]
    assert found["missed"] == [{"wanted": "red", "chosen": "green", "rows": 1}]
