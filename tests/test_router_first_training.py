"""A first stage is fitted, calibrated and judged on rows of its own, and corrections join in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from routing_data import EXPERTS, prompts, word_vectors
from safetensors.numpy import load_file, save_file

from router.card import card_text
from router.cascade import measure_cascade, measure_settled
from router.dataset import DatasetError, LabelledPrompt
from router.evaluation import read, target_matrix
from router.feature_rows import FeatureRows, read_feature_rows
from router.features import FEATURE_VERSION
from router.first import ALLOWED_LOSS, LEAST_CONFIDENCE, LEAST_TRIED
from router.fitting import calibrate_first, label_weights, material
from router.follow_ups import read_followed
from router.gate import Gate
from router.parts import parts
from router.router import Router
from router.surface import SURFACE_DIMENSIONS, surface
from router.training import train_gate
from router.training_report import Report
from router.trials import run_trials

DIMENSIONS = 32


def train(corrections: FeatureRows | None = None, seed: int = 0) -> tuple[Gate, Report]:
    return train_gate(
        prompts(400, 1),
        word_vectors,
        epochs=12,
        encoder_name="words",
        variations=False,
        corrections=corrections,
        seed=seed,
        least_tried=20,
    )


@pytest.fixture(scope="module")
def trained() -> tuple[Gate, Report]:
    return train()


def test_training_again_gives_the_same_first_stage(trained: tuple[Gate, Report]) -> None:
    gate, _ = trained
    again, _ = train()
    assert gate.first is not None and again.first is not None
    assert list(again.first.content()) == list(gate.first.content())
    assert again.version == gate.version


def test_what_it_settles_is_right_and_costs_next_to_nothing(trained: tuple[Gate, Report]) -> None:
    gate, report = trained
    assert gate.first is not None and gate.first.threshold >= LEAST_CONFIDENCE
    rows = prompts(200, 77)
    found = measure_settled(gate, rows, read(rows, word_vectors), "general")
    assert found is not None and found.accuracy is not None
    assert found.share > 0.3
    assert found.accuracy > 0.98
    assert found.cascade >= found.gate - 0.01
    assert report.settled is not None and report.settled.rows == report.held_out.prompts
    assert gate.metadata["settled"] == report.settled.rounded()


def test_the_figures_are_those_of_decisions_one_by_one(trained: tuple[Gate, Report]) -> None:
    gate, _ = trained
    rows = prompts(120, 5)
    cascade = Router(gate, word_vectors, EXPERTS, "general")
    decisions = [cascade.route([("user", row.text)]) for row in rows]
    whole = [cascade.without_first_stage().route([("user", row.text)]) for row in rows]
    best = [max(one.candidates, key=lambda c: c.probability).name for one in decisions]
    alone = [max(one.candidates, key=lambda c: c.probability).name for one in whole]
    right = [name in row.labels for name, row in zip(best, rows, strict=True)]
    gate_right = [name in row.labels for name, row in zip(alone, rows, strict=True)]
    settled = [one.stage == "first" for one in decisions]
    both = run_trials(cascade, rows), run_trials(cascade.without_first_stage(), rows)
    found = measure_cascade(*both, gate.first, resamples=50)
    assert found is not None and found.accuracy is not None
    assert found.share.value == pytest.approx(np.mean(settled))
    hits = [hit for hit, own in zip(right, settled, strict=True) if own]
    assert found.accuracy.value == pytest.approx(np.mean(hits))
    assert found.cascade.value == pytest.approx(np.mean(right))
    assert found.gate.value == pytest.approx(np.mean(gate_right))
    assert found.loss.value == pytest.approx(np.mean(gate_right) - np.mean(right))
    assert found.loss.low <= found.loss.value <= found.loss.high
    moved = [a.chosen[0] != b.chosen[0] for a, b in zip(decisions, whole, strict=True)]
    assert found.flipped == pytest.approx(
        np.mean([m for m, s in zip(moved, settled, strict=True) if s])
    )
    assert measure_cascade(*both, None) is None


def test_the_threshold_keeps_its_price_on_the_rows_it_was_set_on(
    trained: tuple[Gate, Report],
) -> None:
    gate, _ = trained
    assert gate.first is not None
    calibration, tried = prompts(80, 11), prompts(250, 12)
    both = (calibration, read(calibration, word_vectors)), (tried, read(tried, word_vectors))
    first = calibrate_first(gate.first, gate, *both, "general")
    cascade = Router(replace(gate, first=first), word_vectors, EXPERTS, "general")
    lost = 0
    for row in tried:
        found = first.settle(surface(row.text))
        if found is None:
            continue
        whole = cascade.without_first_stage().route([("user", row.text)])
        best = max(whole.candidates, key=lambda c: c.probability).name
        alone = row.labels == (gate.labels[int(found.argmax())],)
        lost += (best in row.labels) - alone
    assert lost <= ALLOWED_LOSS * len(tried)


def test_a_text_of_several_parts_sets_no_threshold(trained: tuple[Gate, Report]) -> None:
    gate, _ = trained
    assert gate.first is not None
    long = [replace(row, text="\n\n".join([row.text] * 60)) for row in prompts(40, 3)]
    assert all(len(parts(row.text)) == 2 for row in long)
    short = prompts(40, 4)
    both = (short, read(short, word_vectors)), (long, read(long, word_vectors))
    assert calibrate_first(gate.first, gate, *both, "general").threshold == 2.0
    found = measure_settled(gate, long, read(long, word_vectors), "general")
    assert found is not None and (found.share, found.accuracy) == (0.0, None)
    assert found.cascade == found.gate


def nonsense(count: int) -> list[LabelledPrompt]:
    """Prompts whose labels nothing tells."""
    dice = np.random.default_rng(9)
    return [
        LabelledPrompt(f"word {dice.integers(10**9)}", (EXPERTS[n % 4],), "en", "s", "MIT")
        for n in range(count)
    ]


def test_where_nothing_is_sure_there_is_no_first_stage(tmp_path: Path) -> None:
    gate, report = train_gate(nonsense(120), word_vectors, epochs=2, variations=False)
    assert gate.first is None
    assert report.settled is None and report.metadata()["settled"] is None
    gate.save(tmp_path)
    assert Gate.load(tmp_path).first is None


def test_too_few_prompts_to_try_it_on_leave_no_first_stage(trained: tuple[Gate, Report]) -> None:
    gate, report = train_gate(
        prompts(400, 1), word_vectors, epochs=12, encoder_name="words", variations=False
    )
    assert report.calibration_rows < LEAST_TRIED
    assert gate.first is None and report.settled is None
    np.testing.assert_array_equal(gate.weight, trained[0].weight)


def test_every_label_has_the_same_mass_whatever_the_weights() -> None:
    shares = np.array([[1, 0], [1, 0], [0.5, 0.5], [0, 1]], dtype=np.float64)
    found = label_weights(shares, np.array([1.0, 3.0, 1.0, 2.0]))
    assert found.mean() == pytest.approx(1.0)
    # By hand: masses 4.5 and 2.5, so that rows weigh 1/4.5, 3/4.5, .5/4.5 + .5/2.5, 2/2.5.
    by_hand = np.array([1 / 4.5, 3 / 4.5, 0.5 / 4.5 + 0.5 / 2.5, 2 / 2.5])
    np.testing.assert_allclose(found, by_hand / by_hand.mean())


def corrections(
    texts: Mapping[str, str], weight: float = 1.0, surfaces: Mapping[str, str] | None = None
) -> FeatureRows:
    """Corrected decisions on texts that were read whole, and on others that were settled."""
    rows = [LabelledPrompt(text, (label,), "en", "s", "MIT") for text, label in texts.items()]
    reading = read(rows, word_vectors)
    settled = surfaces or {}
    nothing = np.zeros((0, SURFACE_DIMENSIONS), dtype=np.float32)
    return FeatureRows(
        reading.features,
        reading.starts,
        tuple(texts.values()),
        np.stack([surface(text) for text in settled]) if settled else nothing,
        tuple(settled.values()),
        weight,
    )


def test_corrections_are_material_beside_the_prompts() -> None:
    rows = prompts(20, 1)
    long = "\n\n".join(["weather cake"] * 120)
    given = corrections({"tulip": "code", long: "legal"}, 3.0, {"seed": "general"})
    reading = read(rows, word_vectors)
    found = material(EXPERTS, rows, reading, None, given)
    np.testing.assert_array_equal(found.features[: len(reading.features)], reading.features)
    np.testing.assert_array_equal(found.features[len(reading.features) :], given.features)
    shares = np.concatenate([target_matrix(rows, EXPERTS), [[1, 0, 0, 0], [0, 1, 0, 0]]])
    weights = label_weights(shares, np.array([1.0] * 20 + [3.0, 3.0]))
    np.testing.assert_allclose(
        found.weights, [*weights[:20], weights[20], weights[21] / 2, weights[21] / 2], rtol=1e-6
    )
    np.testing.assert_array_equal(found.targets[20:], [[1, 0, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0]])
    np.testing.assert_array_equal(found.surfaces, [surface("seed")])
    np.testing.assert_array_equal(found.surface_targets, [[0, 0, 0, 1]])
    # The first stage reads the same rows and the settled one, and each label has as much there.
    first = label_weights(
        np.concatenate([shares, [[0, 0, 0, 1]]]), np.array([1.0] * 20 + [3.0] * 3)
    )
    by_hand = [*first[:20], first[20], first[21] / 2, first[21] / 2, first[22]]
    np.testing.assert_allclose(found.first_weights, by_hand, rtol=1e-6)
    assert found.alone.all()


def test_settled_corrections_gain_their_label_no_more_than_its_share() -> None:
    rows = prompts(40, 1)
    many = corrections({"x": "code"}, 5.0, {f"seed {n}": "legal" for n in range(60)})
    reading = read(rows, word_vectors)
    found = material(EXPERTS, rows, reading, None, many)
    targets = np.concatenate([found.targets, found.surface_targets])
    masses = (targets * found.first_weights[:, None]).sum(axis=0)
    # Prompts of two labels put a little of one label's mass on the other.
    assert masses.max() / masses.min() < 1.2
    assert masses[EXPERTS.index("legal")] == pytest.approx(len(targets) / 4, rel=0.1)


def test_conversations_teach_the_gate_and_not_the_first_stage() -> None:
    rows = prompts(20, 1)
    reading = read(rows, word_vectors)
    told = [(rows[3], (rows[3].text, "and now?")), (rows[4], (rows[8].text, rows[4].text))]
    both = read_followed(told, word_vectors)
    found = material(EXPERTS, rows, reading, None, None, ([row for row, _ in told], both))
    assert found.alone.tolist() == [True] * 20 + [False] * 2
    np.testing.assert_array_equal(found.features[20:], both.features)
    shares = target_matrix([*rows, rows[3], rows[4]], EXPERTS)
    np.testing.assert_allclose(found.targets, shares)
    np.testing.assert_allclose(found.weights, label_weights(shares, np.ones(22)), rtol=1e-6)
    first = label_weights(shares[:20], np.ones(20))
    np.testing.assert_allclose(found.first_weights, first, rtol=1e-6)


GARDEN = ("tulip compost", "lawn seed", "pruning soil", "compost lawn", "seed tulip")


def chosen(gate: Gate, text: str) -> str:
    made = Router(gate, word_vectors, EXPERTS, "general").without_first_stage()
    return made.route([("user", text)]).chosen[0]


def test_a_gate_learns_from_corrections_without_their_text(trained: tuple[Gate, Report]) -> None:
    texts = {f"{text} {n}": "legal" for n in range(12) for text in GARDEN}
    taught, report = train(corrections(texts, 2.0))
    questions = [f"{text} 99" for text in GARDEN]
    assert sum(chosen(taught, text) == "legal" for text in questions) == len(questions)
    assert sum(chosen(trained[0], text) == "legal" for text in questions) < len(questions)
    assert report.corrections == 60 and taught.metadata["corrections"] == 60
    # What is held out and calibrated on holds none of them.
    assert report.held_out.prompts == trained[1].held_out.prompts
    assert report.trained_rows == trained[1].trained_rows


def test_what_was_settled_wrongly_is_learned_by_the_first_stage_alone(
    trained: tuple[Gate, Report],
) -> None:
    nothing = corrections({"weather cake": "general"})
    empty = replace(nothing, features=nothing.features[:0], starts=nothing.starts[:0], labels=())
    surfaces = {f"{text} {n}": "legal" for n in range(12) for text in GARDEN}
    given = replace(
        corrections({"x": "code"}, 2.0, surfaces),
        features=empty.features,
        starts=empty.starts,
        labels=(),
    )
    taught, report = train(given)
    before, _ = trained
    np.testing.assert_array_equal(taught.weight, before.weight)
    assert taught.first is not None and before.first is not None
    place = taught.labels.index("legal")
    for text in GARDEN:
        row = surface(f"{text} 99")
        assert taught.first.probabilities(row)[place] > before.first.probabilities(row)[place]
    assert report.corrections == 60


def test_corrections_that_do_not_fit_are_named() -> None:
    rows = prompts(100, 1)
    with pytest.raises(DatasetError, match="no label 'medical'"):
        train_gate(
            rows, word_vectors, variations=False, corrections=corrections({"fever": "medical"})
        )
    other = corrections({"fever": "code"})
    other = replace(other, features=np.zeros((1, 7), dtype=np.float32))
    with pytest.raises(DatasetError, match="7 features do not fit"):
        train_gate(rows, word_vectors, variations=False, corrections=other)


def written(path: Path, given: FeatureRows, **changes: str) -> Path:
    head = {
        "domains": json.dumps(given.labels),
        "surface_domains": json.dumps(given.surface_labels),
        "version": FEATURE_VERSION,
        "encoder": "words",
        "dimensions": str(DIMENSIONS),
    }
    tensors = {
        "features": given.features.astype(np.float16),
        "starts": given.starts,
        "surfaces": given.surfaces.astype(np.float16),
    }
    save_file(tensors, path, {**head, **changes})
    return path


def test_files_of_corrections_are_read_one_behind_the_other(tmp_path: Path) -> None:
    long = "\n\n".join(["weather cake"] * 120)
    one = corrections({long: "code", "b": "legal"}, surfaces={"s": "general"})
    two = corrections({"c": "multilingual"}, surfaces={"t": "code", "u": "legal"})
    files = [written(tmp_path / "1", one), written(tmp_path / "2", two)]
    found = read_feature_rows(files, "words", DIMENSIONS, 2.5)
    assert found.labels == ("code", "legal", "multilingual")
    assert found.starts.tolist() == [0, 2, 3] and found.counts.tolist() == [2, 1, 1]
    whole = np.concatenate([one.features, two.features])
    np.testing.assert_allclose(found.features, whole, atol=1e-3)
    assert found.surface_labels == ("general", "code", "legal")
    np.testing.assert_allclose(found.surfaces, np.stack([surface(t) for t in "stu"]), atol=1e-3)
    assert (found.weight, len(found)) == (2.5, 6)
    assert len(read_feature_rows([], "words", DIMENSIONS)) == 0


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"encoder": "other"}, "`encoder` is 'other'"),
        ({"version": "1"}, "`version` is '1'"),
        ({"dimensions": "9"}, "`dimensions` is '9'"),
        ({"domains": "["}, "not JSON"),
        ({"domains": '["code", 3]'}, "names of experts"),
        ({"domains": '["code", "legal"]'}, "damaged"),
        ({"more": "x"}, "not written by"),
    ],
)
def test_a_file_of_corrections_that_cannot_be_used_is_named(
    tmp_path: Path, changes: dict[str, str], word: str
) -> None:
    path = written(tmp_path / "rows.safetensors", corrections({"a": "code"}), **changes)
    with pytest.raises(DatasetError, match=word) as caught:
        read_feature_rows([path], "words", DIMENSIONS)
    assert str(path) in str(caught.value)


def test_what_is_no_file_of_corrections_is_refused(tmp_path: Path) -> None:
    junk = tmp_path / "junk"
    junk.write_bytes(b"junk")
    with pytest.raises(DatasetError, match="not a safetensors file"):
        read_feature_rows([junk], "words", DIMENSIONS)
    with pytest.raises(OSError, match="nowhere"):
        read_feature_rows([tmp_path / "nowhere"], "words", DIMENSIONS)
    path = written(tmp_path / "rows", corrections({"a": "code"}))
    tensors = load_file(path)
    broken = {**tensors, "features": np.full_like(tensors["features"], np.nan)}
    head = {"domains": '["code"]', "surface_domains": "[]", "version": FEATURE_VERSION}
    save_file(broken, path, {**head, "encoder": "words", "dimensions": str(DIMENSIONS)})
    with pytest.raises(DatasetError, match="damaged"):
        read_feature_rows([path], "words", DIMENSIONS)


def test_the_card_tells_what_the_first_stage_does(trained: tuple[Gate, Report]) -> None:
    gate, report = trained
    assert gate.first is not None and report.settled is not None
    more = {"epochs": 12, "excluded_licenses": []}
    gate = replace(gate, metadata={**gate.metadata, **more})
    card = card_text(gate)
    assert f"from a confidence of {gate.first.threshold:.4f} on" in card
    assert f"settles {report.settled.share:.3f} of the held-out prompts" in card
    plain = card_text(replace(gate, first=None, metadata={**gate.metadata, "settled": None}))
    assert "irst stage" not in plain
