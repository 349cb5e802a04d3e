"""Targets and auxiliary losses of the gate, against their formulas and finite differences."""

from __future__ import annotations

import numpy as np
import pytest

from router.calibration import log_sigmoid, softmax
from router.dataset import fingerprint
from router.losses import AnswerLoss, LossError, LossTable
from router.optimizer import auxiliary_gradient
from router.targets import TargetSettings, collapse, loss_targets, mixed_targets


def test_the_auxiliary_gradient_is_that_of_the_losses() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(7, 4)).astype(np.float32)
    leads = np.bincount(softmax(log_sigmoid(logits)).argmax(axis=1), minlength=4) / 7

    def loss(at: np.ndarray) -> float:
        scores = log_sigmoid(at)
        balance = 0.3 * 4 * float(leads @ softmax(scores).mean(axis=0))
        z = 0.2 * float((np.log(np.exp(scores).sum(axis=1)) ** 2).mean())
        return balance + z

    found = auxiliary_gradient(logits, 0.3, 0.2) / 7
    step = 1e-3
    for row, column in np.ndindex(7, 4):
        moved = np.zeros_like(logits, dtype=np.float64)
        moved[row, column] = step
        slope = (loss(logits + moved) - loss(logits - moved)) / (2 * step)
        assert found[row, column] == pytest.approx(slope, abs=1e-5)


def test_loss_targets_are_the_softened_posterior_of_the_doubted_label() -> None:
    labels = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    losses = np.array([[1.0, 1.5], [2.0, 1.9], [3.0, 3.0]])
    found = loss_targets(labels, losses, [4, 1000, 5], TargetSettings(0.1, 2.0))
    odds = np.exp([0.5 * 4 / 2, 0.1 * 32 / -2, 0.0]) * np.array([19.0, 19.0, 1 / 19])
    assert found[:, 0] == pytest.approx(odds / (1 + odds))


def test_only_rows_with_known_losses_are_mixed() -> None:
    table = LossTable(("b", "a"), ("", ""), {fingerprint("known"): AnswerLoss((1.0, 3.0), 8)})
    labels = np.array([[1.0, 0.0], [0.5, 0.5]])
    settings = TargetSettings(doubt=0.5, temperature=4.0)
    found = mixed_targets(labels, ["known", "other"], ["a", "b"], table, settings)
    # The table has "b" before "a": what was measured is 3 nats for "a" and 1 for "b".
    odds = 3.0 * np.exp(-2.0 * 8 / 4)
    assert found[0] == pytest.approx([odds / (1 + odds), 1 / (1 + odds)])
    assert found[1].tolist() == [0.5, 0.5]
    assert mixed_targets(labels, ["known", "other"], ["a", "b"], None).tolist() == labels.tolist()


def test_a_label_without_losses_is_named() -> None:
    table = LossTable(("a",), ("",))
    with pytest.raises(LossError, match="no losses of b"):
        mixed_targets(np.ones((1, 2)), ["x"], ["a", "b"], table)


def test_collapse_is_told() -> None:
    assert collapse(np.eye(4)) == pytest.approx({"entropy": 1.0, "least": 1.0})
    led = np.tile([0.9, 0.1], (6, 1))
    assert collapse(led) == pytest.approx({"entropy": 0.0, "least": 0.0})
