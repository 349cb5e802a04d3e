import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from router.calibration import calibration_error, fit_temperature, negative_log_likelihood, softmax
from router.features import feature_dimensions
from router.gate import METADATA_FILE, WEIGHTS_FILE, Gate, GateError
from tests.routing_data import empty_gate

LABELS = ("code", "general", "legal")


@pytest.fixture
def gate() -> Gate:
    rng = np.random.default_rng(3)
    weight = rng.normal(size=(3, feature_dimensions(8))).astype(np.float32)
    bias = rng.normal(size=3).astype(np.float32)
    return Gate(LABELS, weight, bias, temperature=1.7, encoder="tiny", metadata={"seed": 3})


def rows(count: int) -> np.ndarray:
    return np.random.default_rng(4).normal(size=(count, feature_dimensions(8))).astype(np.float32)


def test_a_saved_gate_comes_back_with_the_same_probabilities(gate: Gate, tmp_path: Path) -> None:
    gate.save(tmp_path / "new" / "folder")
    loaded = Gate.load(tmp_path / "new" / "folder")
    np.testing.assert_array_equal(loaded.probabilities(rows(5)), gate.probabilities(rows(5)))
    assert (loaded.labels, loaded.encoder, loaded.version) == (LABELS, "tiny", gate.version)
    assert loaded.metadata["seed"] == 3


def test_probabilities_equal_sigmoids_raised_and_normalised(gate: Gate) -> None:
    for row, found in zip(rows(20), gate.probabilities(rows(20)), strict=True):
        logits = [float(np.dot(w.astype(float), row)) for w in gate.weight] + gate.bias
        powers = [(1.0 / (1.0 + np.exp(-logit))) ** (1.0 / 1.7) for logit in logits]
        np.testing.assert_allclose(found, np.array(powers) / sum(powers), atol=1e-5)


def test_probabilities_stay_finite_for_extreme_features(gate: Gate) -> None:
    found = gate.probabilities(rows(4) * 1e6)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found.sum(axis=1), 1.0, atol=1e-12)


def test_two_plain_labels_share_the_probability_equally() -> None:
    gate = empty_gate(LABELS, 8)
    gate.bias[:] = (9.0, -9.0, 30.0)
    code, general, legal = gate.probabilities(rows(1))[0]
    assert code == pytest.approx(0.5, abs=1e-3)
    assert legal == pytest.approx(0.5, abs=1e-3)
    assert general < 1e-3


def test_the_version_changes_with_whatever_changes_a_probability(gate: Gate) -> None:
    nudged = gate.weight.copy()
    nudged[0, 0] += 1e-3
    others = [
        replace(gate, weight=nudged),
        replace(gate, bias=gate.bias + 1),
        replace(gate, temperature=1.8),
        replace(gate, labels=("code", "general", "law")),
        replace(gate, encoder="other"),
    ]
    versions = {gate.version, *(other.version for other in others)}
    assert len(versions) == 6
    assert replace(gate, metadata={}).version == gate.version


def test_a_gate_survives_pickling(gate: Gate) -> None:
    assert pickle.loads(pickle.dumps(gate)).version == gate.version


def test_weights_that_do_not_belong_to_the_metadata_are_refused(gate: Gate, tmp_path: Path) -> None:
    gate.save(tmp_path)
    head = (tmp_path / METADATA_FILE).read_text()
    replace(gate, bias=gate.bias + 1).save(tmp_path)
    (tmp_path / METADATA_FILE).write_text(head)
    with pytest.raises(GateError, match="do not belong together"):
        Gate.load(tmp_path)


@pytest.mark.parametrize("missing", [WEIGHTS_FILE, METADATA_FILE])
def test_a_missing_file_is_named(gate: Gate, tmp_path: Path, missing: str) -> None:
    gate.save(tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises(GateError, match=missing):
        Gate.load(tmp_path)


def test_pickled_weights_are_not_read(gate: Gate, tmp_path: Path) -> None:
    gate.save(tmp_path)
    (tmp_path / WEIGHTS_FILE).write_bytes(pickle.dumps({"weight": gate.weight}))
    with pytest.raises(GateError, match="not a safetensors file"):
        Gate.load(tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "word"),
    [
        ("format", 99, "format"),
        ("features", "0", "features"),
        ("labels", "code", "labels"),
        ("labels", ["code"], "labels"),
        ("temperature", None, "temperature"),
        ("temperature", -1.0, "temperature"),
    ],
)
def test_wrong_metadata_is_named(
    gate: Gate, tmp_path: Path, key: str, value: object, word: str
) -> None:
    gate.save(tmp_path)
    path = tmp_path / METADATA_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(GateError, match=word):
        Gate.load(tmp_path)


def test_metadata_that_is_not_json_is_refused(gate: Gate, tmp_path: Path) -> None:
    gate.save(tmp_path)
    (tmp_path / METADATA_FILE).write_text("{")
    with pytest.raises(GateError, match="not JSON"):
        Gate.load(tmp_path)


def test_weights_that_are_not_numbers_are_refused(gate: Gate) -> None:
    with pytest.raises(GateError, match="finite"):
        replace(gate, bias=np.array([0.0, np.nan, 0.0], dtype=np.float32))


def test_softmax_equals_plain_arithmetic() -> None:
    scores = np.array([[1.0, 2.0, -3.0], [0.0, 0.0, 1000.0]])
    powers = [np.exp(value / 2.5) for value in (1.0, 2.0, -3.0)]
    np.testing.assert_allclose(softmax(scores, 2.5)[0], np.array(powers) / sum(powers))
    np.testing.assert_allclose(softmax(scores, 2.5)[1], [0.0, 0.0, 1.0], atol=1e-12)


def test_the_fitted_temperature_beats_a_fine_grid() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(2_000, 4)) * 2.0
    truth = [rng.choice(4, p=row) for row in softmax(scores, 2.0)]
    targets = np.eye(4)[truth]
    fitted = fit_temperature(scores, targets)
    losses = {
        float(t): negative_log_likelihood(softmax(scores, float(t)), targets)
        for t in np.linspace(0.3, 6.0, 500)
    }
    assert negative_log_likelihood(softmax(scores, fitted), targets) <= min(losses.values()) + 1e-9
    # The labels were drawn at temperature 2, so calibration has to find it again.
    assert fitted == pytest.approx(2.0, rel=0.1)


def test_calibration_error_equals_a_hand_computation() -> None:
    probabilities = np.array([[0.6, 0.4], [0.7, 0.3], [0.2, 0.8], [0.1, 0.9]])
    targets = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.5, 0.5]])
    # Two bins of two: |0.65 - 0.5| and |0.85 - 0.75|.
    assert calibration_error(probabilities, targets, bins=2) == pytest.approx((0.15 + 0.1) / 2)
