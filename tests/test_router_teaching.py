"""Experts come and go: what a taught one takes, what a forgotten one leaves, and what is said."""

from __future__ import annotations

import itertools
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from routing_data import empty_gate, prompts, with_expert, word_vectors
from taught_world import DOMAINS, features, features_of, questions, world

from router.background import ROWS, Background, choose_rows
from router.calibration import calibration_error, log_sigmoid, softmax
from router.dataset import DatasetError, LabelledPrompt, hash_share, read_prompts
from router.evaluation import target_matrix
from router.features import Encoder as Encode
from router.gate import METADATA_FILE, WEIGHTS_FILE, Gate, GateError
from router.parts import parts
from router.prototypes import PrototypeError
from router.taught import Taught
from router.teaching import example_features, forget, read_examples, teach
from router.training import train_gate

Floats = npt.NDArray[np.float64]


def taught(*names: str) -> Gate:
    gate = world()
    for name in names:
        gate = with_expert(gate, name, features(questions(name, 40)))
    return gate


@pytest.fixture(scope="module")
def medical() -> Gate:
    return taught("medical")


def others(count: int = 300) -> npt.NDArray[np.float32]:
    return features_of(prompts(count, seed=77))


def test_an_expert_of_forty_examples_gets_its_prompts(medical: Gate) -> None:
    fresh = features(questions("medical", 200, seed=5))
    assert medical.labels == (*world().labels, "medical")
    led = medical.probabilities(fresh).argmax(axis=1) == 4
    assert led.mean() >= 0.9


def test_the_others_keep_their_decisions(medical: Gate) -> None:
    before, after = world().probabilities(others()), medical.probabilities(others())
    assert (before.argmax(axis=1) == after.argmax(axis=1)).mean() >= 0.99


def test_what_an_expert_gets_it_takes_from_all_in_proportion(medical: Gate) -> None:
    rows = np.concatenate([others(60), features(questions("medical", 20, seed=6))])
    before, after = world().probabilities(rows), medical.probabilities(rows)
    np.testing.assert_allclose(after.sum(axis=1), 1.0, atol=1e-12)
    np.testing.assert_allclose(after[:, :4], before * (1.0 - after[:, 4:]), atol=1e-12)


def test_probabilities_follow_the_formula() -> None:
    gate = taught("medical", "finance")
    assert gate.taught is not None
    rows = np.concatenate([others(20), features(questions("finance", 20, seed=7))])
    base = world().probabilities(rows)
    for row, shares, found in zip(rows, base, gate.probabilities(rows), strict=True):
        odds = [
            float(np.exp(float(np.dot(w.astype(float), row[:32])) + float(b)))
            for w, b in zip(gate.taught.weight, gate.taught.bias, strict=True)
        ]
        total = 1.0 + sum(odds)
        expected = [*(share / total for share in shares), *(odd / total for odd in odds)]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-9)


def test_huge_log_odds_overflow_nothing(medical: Gate) -> None:
    found = medical.probabilities(np.concatenate([others(5) * 1e6, -others(5) * 1e6]))
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found.sum(axis=1), 1.0, atol=1e-12)


def test_the_order_of_teaching_changes_no_probability() -> None:
    rows = np.concatenate([others(50), *(features(questions(d, 10, seed=8)) for d in DOMAINS)])
    found = []
    for order in itertools.permutations(DOMAINS):
        gate = taught(*order)
        by_name = dict(zip(gate.labels, gate.probabilities(rows).T, strict=True))
        found.append(np.stack([by_name[name] for name in sorted(by_name)]))
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], atol=1e-6)


def test_each_of_several_experts_gets_its_own() -> None:
    gate = taught(*DOMAINS)
    for name in DOMAINS:
        found = gate.probabilities(features(questions(name, 100, seed=9))).argmax(axis=1)
        assert (found == gate.labels.index(name)).mean() >= 0.9
    before = world().probabilities(others()).argmax(axis=1)
    assert (gate.probabilities(others()).argmax(axis=1) == before).mean() >= 0.97


def test_an_expert_that_is_forgotten_leaves_no_trace() -> None:
    gate = taught("medical", "finance")
    rows = others(50)
    alone = gate.without("medical", "general")
    np.testing.assert_array_equal(alone.probabilities(rows), taught("finance").probabilities(rows))
    assert alone.version == taught("finance").version
    bare = alone.without("finance", "general")
    np.testing.assert_array_equal(bare.probabilities(rows), world().probabilities(rows))
    assert (bare.version, bare.labels) == (world().version, world().labels)


def test_what_a_forgotten_trained_label_got_goes_to_its_heir(medical: Gate) -> None:
    rows = others(100)
    for gate in (world(), medical):
        left = gate.without("legal", "general")
        before = dict(zip(gate.labels, gate.probabilities(rows).T, strict=True))
        after = dict(zip(left.labels, left.probabilities(rows).T, strict=True))
        assert set(after) == set(before) - {"legal"}
        np.testing.assert_allclose(after["general"], before["general"] + before["legal"])
        for name in set(after) - {"general"}:
            np.testing.assert_allclose(after[name], before[name])
        assert left.version != gate.version
        assert (left.known_background().targets[:, 2] == 0.0).all()


def test_a_forgotten_label_can_be_taught_anew() -> None:
    left = world().without("legal", "general")
    texts = [row.text for row in prompts(400, seed=3) if row.labels == ("legal",)]
    gate = with_expert(left, "legal", features(texts[:40]))
    assert gate.labels == ("code", "general", "multilingual", "legal")
    led = gate.probabilities(features(texts[40:])).argmax(axis=1)
    assert (led == 3).mean() >= 0.9


def test_an_heir_without_a_label_gets_one() -> None:
    left = world().without("legal", "base")
    assert left.labels == ("code", "general", "base", "multilingual")


@pytest.mark.parametrize(
    ("name", "heir", "words"),
    [
        ("cooking", "general", "'cooking' is no label; there are code, general"),
        ("general", "general", "cannot be forgotten"),
        ("legal", "medical", "'medical' was taught"),
    ],
)
def test_what_cannot_be_forgotten_is_refused(
    medical: Gate, name: str, heir: str, words: str
) -> None:
    with pytest.raises(GateError, match=words):
        medical.without(name, heir)


def test_a_label_is_not_taught_twice(medical: Gate) -> None:
    for name in ("medical", "legal"):
        with pytest.raises(GateError, match="is a label already: forget it first"):
            with_expert(medical, name, features(questions("medical", 20)))


def test_a_gate_without_background_says_what_to_do() -> None:
    bare = replace(world(), background=None)
    with pytest.raises(GateError, match="Train it anew with `collegium train router`"):
        with_expert(bare, "medical", features(questions("medical", 20)))


def test_few_examples_and_foreign_features_are_refused() -> None:
    with pytest.raises(PrototypeError, match="at least 20"):
        with_expert(world(), "medical", features(questions("medical", 19)))
    with pytest.raises(GateError, match="joined rows of"):
        with_expert(world(), "medical", features(questions("medical", 20))[:, :32])


def test_a_taught_gate_comes_back_from_disk(tmp_path: Path) -> None:
    gate = taught("medical", "finance").without("legal", "general")
    gate.save(tmp_path)
    loaded = Gate.load(tmp_path)
    assert (loaded.version, loaded.labels, loaded.rows) == (gate.version, gate.labels, gate.rows)
    np.testing.assert_array_equal(loaded.probabilities(others(9)), gate.probabilities(others(9)))
    again = with_expert(loaded, "garden", features(questions("garden", 40)))
    assert again.version == with_expert(gate, "garden", features(questions("garden", 40))).version
    assert loaded.without("finance", "general").without("medical", "general").labels == (
        "code",
        "general",
        "multilingual",
    )


def test_a_gate_that_was_loaded_can_be_taught_and_saved_again(tmp_path: Path) -> None:
    world().save(tmp_path / "one")
    gate, _ = teach(Gate.load(tmp_path / "one"), "medical", features(questions("medical", 40)))
    gate.save(tmp_path / "two")
    assert Gate.load(tmp_path / "two").version == gate.version


def test_gates_of_the_first_format_still_load(tmp_path: Path) -> None:
    old = replace(world(), background=None, first=None)
    old.save(tmp_path)
    head = json.loads((tmp_path / METADATA_FILE).read_text())
    assert head["format"] == 1 and "rows" not in head
    assert Gate.load(tmp_path).version == old.version


def test_the_version_covers_everything_that_was_taught(medical: Gate) -> None:
    known = medical.taught
    assert known is not None
    versions = {
        world().version,
        medical.version,
        replace(medical, taught=replace(known, bias=known.bias + 1)).version,
        replace(medical, taught=replace(known, weight=known.weight * 2)).version,
        world().without("legal", "general").version,
        world().without("legal", "code").version,
    }
    assert len(versions) == 6
    assert replace(medical, background=None).version == medical.version


@pytest.mark.parametrize("lost", ["taught.bias", "background.logits"])
def test_a_file_that_lacks_a_part_is_refused(medical: Gate, tmp_path: Path, lost: str) -> None:
    from safetensors.numpy import load, save

    medical.save(tmp_path)
    tensors = load((tmp_path / WEIGHTS_FILE).read_bytes())
    del tensors[lost]
    (tmp_path / WEIGHTS_FILE).write_bytes(save(tensors))
    with pytest.raises(GateError, match=lost.replace(".", r"\.")):
        Gate.load(tmp_path)


def test_parts_that_do_not_fit_are_refused(medical: Gate) -> None:
    known, background = medical.taught, medical.background
    assert known is not None and background is not None
    with pytest.raises(GateError, match="several lengths"):
        replace(medical, taught=replace(known, weight=known.weight[:, :5]))
    short = Background(background.vectors, background.logits[:, :2], background.targets[:, :2])
    with pytest.raises(GateError, match="not of 4 units"):
        replace(medical, background=short)
    with pytest.raises(GateError, match="labels"):
        replace(medical, labels=world().labels)


def test_rows_that_were_not_fitted_stand_first_in_the_background() -> None:
    background = world().known_background()
    rows = prompts(600, seed=1)
    vectors = {tuple(v): row for v, row in zip(half(rows).tolist(), rows, strict=True)}
    found = [vectors[tuple(vector)] for vector in background.vectors.tolist()]
    assert len(found) == len({row.text for row in found}) == 600
    first = sum(hash_share(row.text, 0) >= 0.8 for row in rows)
    assert 90 < first < 150
    assert all(hash_share(row.text, 0) >= 0.8 for row in found[:first])
    assert all(hash_share(row.text, 0) < 0.8 for row in found[first:])
    targets = target_matrix(found, world().labels)
    np.testing.assert_allclose(background.targets, targets, atol=1e-6)
    expected = world().probabilities(features_of(found))
    np.testing.assert_allclose(world().background_probabilities(), expected, atol=1e-5)


def test_a_large_background_holds_rows_alone_that_were_not_fitted() -> None:
    places = choose_rows(2000, 8000, seed=0)
    assert len(set(places.tolist())) == ROWS and places.max() < 2000
    # Drawn from all of them: the middle of 1,024 of 2,000 places, five standard deviations.
    assert abs(places.mean() - 1000) < 5 * 577 / 1024**0.5


def half(rows: list[LabelledPrompt]) -> npt.NDArray[np.float16]:
    return word_vectors([row.text for row in rows]).astype(np.float16)


def test_a_gate_of_many_units_gives_what_the_whole_product_gives() -> None:
    dice = np.random.default_rng(2)
    empty = empty_gate(tuple(f"expert {n}" for n in range(200)), 32)
    gate = replace(empty, weight=dice.normal(size=empty.weight.shape).astype(np.float32))
    for row in others(5):
        expected = softmax(log_sigmoid(row @ gate.weight.T + gate.bias))
        np.testing.assert_allclose(gate.probabilities(row), expected, rtol=1e-4, atol=1e-9)
    for count in (2, 4, 5):
        rows = others(count)
        expected = softmax(log_sigmoid(rows @ gate.weight.T + gate.bias))
        np.testing.assert_allclose(gate.probabilities(rows), expected, rtol=1e-4, atol=1e-9)


def test_a_hundred_experts_more_leave_the_others_what_is_theirs() -> None:
    # Domains without any likeness: each a direction of its own in a space that has room for them.
    dice = np.random.default_rng(12)
    gate, rows = world(), others(200)
    before = gate.probabilities(rows)
    width = gate.weight.shape[1]
    for number in range(100):
        middle = dice.normal(size=32)
        examples = middle / np.linalg.norm(middle) + dice.normal(0.0, 0.08, (24, 32))
        joined = np.zeros((24, width), dtype=np.float32)
        joined[:, :32] = examples / np.linalg.norm(examples, axis=1, keepdims=True)
        gate = with_expert(gate, f"domain {number}", joined)
    after = gate.probabilities(rows)
    assert (after.argmax(axis=1) == before.argmax(axis=1)).mean() >= 0.95


def test_a_lesson_says_what_teaching_did() -> None:
    gate, lesson = teach(world(), "medical", features(questions("medical", 40)))
    assert gate.version == taught("medical").version
    assert lesson.examples == 40
    assert lesson.recall.value >= 0.9 and lesson.recall.low < lesson.recall.value
    assert sum(lesson.before.values()) == pytest.approx(1.0)
    assert lesson.moved <= 0.02
    assert lesson.accuracy[1] == pytest.approx(lesson.accuracy[0], abs=0.02)
    assert not lesson.twin
    assert gate.metadata["taught"]["medical"]["recall"]["value"] == lesson.recall.value
    moved = gate.metadata["held_out"]["accuracy"] - world().metadata["held_out"]["accuracy"]
    assert moved == pytest.approx(lesson.accuracy[1] - lesson.accuracy[0], abs=2e-4)


def test_a_lesson_counts_what_the_background_loses() -> None:
    # "Medical" questions that are really about law: half of what the law's expert had.
    texts = [row.text for row in prompts(400, seed=21) if row.labels == ("legal",)][:40]
    gate, lesson = teach(world(), "medical", features(texts))
    assert lesson.twin and lesson.nearest == "legal" and lesson.cosine > 0.9
    assert lesson.before["legal"] >= 0.9
    assert lesson.taken["legal"] > 0.2
    assert set(lesson.taken) <= {"legal", "general", "code", "multilingual"}
    share = (world().background_probabilities().argmax(axis=1) == 2).mean()
    assert lesson.moved == pytest.approx(lesson.taken["legal"] * share, abs=0.02)
    assert lesson.accuracy[1] == pytest.approx(lesson.accuracy[0] - lesson.moved, abs=0.02)


def test_recall_is_that_of_rows_which_took_no_part() -> None:
    texts = questions("medical", 20)
    _, lesson = teach(world(), "medical", features(texts))
    hits = 0
    rows = features(texts)
    for left in range(20):
        rest = np.delete(rows, left, axis=0)
        # One example is put twice, so that twenty remain; it stands for the one that is left out.
        gate = with_expert(world(), "medical", np.concatenate([rest, rest[:1]]))
        hits += int(gate.probabilities(rows[left]).argmax() == 4)
    assert abs(hits / 20 - lesson.recall.value) <= 0.15


def test_forgetting_moves_the_figures_back() -> None:
    gate, _ = teach(world(), "medical", features(questions("medical", 40)))
    left = forget(gate, "medical", "general")
    assert left.version == world().version
    assert "taught" not in left.metadata
    without = forget(world(), "legal", "general")
    assert without.metadata["held_out"]["accuracy"] >= world().metadata["held_out"]["accuracy"]


def test_examples_are_read_from_lines_and_from_json(tmp_path: Path) -> None:
    texts = questions("medical", 25)
    (tmp_path / "a.txt").write_text("\n\n".join([*texts, texts[0].upper()]))
    assert read_examples(tmp_path / "a.txt") == texts
    rows = [
        json.dumps({"prompt": text} if n % 2 else {"text": text}) for n, text in enumerate(texts)
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(rows))
    assert read_examples(tmp_path / "a.jsonl") == texts


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.txt", "one\ntwo\nTwo!\n", "2 different prompts are too few, at least 20"),
        ("a.jsonl", "nothing\n", "a.jsonl:1: not a JSON object"),
        ("a.jsonl", '{"question": "x"}\n', "a.jsonl:1: `prompt`"),
        ("a.jsonl", '["x"]\n', "a.jsonl:1: `prompt`"),
    ],
)
def test_examples_that_cannot_be_used_are_named(
    tmp_path: Path, name: str, text: str, words: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DatasetError, match=words):
        read_examples(tmp_path / name)


def training_data() -> Path | None:
    shared = os.environ.get("COLLEGIUM_SHARED")
    root = Path(shared) if shared else Path(__file__).resolve().parents[2] / "shared"
    folder = root / "data" / "train"
    return folder if folder.is_dir() else None


SUBDOMAINS = {
    "arithmetic": ("general", "openai/grade-school-math train"),
    "regulations": ("legal", "CFPB regulations"),
    "rules": ("legal", "OR-ShARC"),
}


@pytest.mark.models
@pytest.mark.parametrize("name", list(SUBDOMAINS))
def test_a_real_domain_of_forty_prompts_is_found_and_costs_the_others_little(
    real_gate: Gate,
    real_rows: dict[str, list[LabelledPrompt]],
    real_vectors: dict[str, Floats],
    name: str,
) -> None:
    def joined(rows: list[LabelledPrompt]) -> npt.NDArray[np.float32]:
        return example_features([row.text for row in rows], remembered(real_vectors))

    inside, rest = real_rows[name], real_rows["unseen"]
    gate, lesson = teach(real_gate, name, joined(inside[:40]))
    found = gate.probabilities(joined(inside[40:]))
    assert (found.argmax(axis=1) == len(real_gate.labels)).mean() >= 0.9
    assert lesson.recall.value >= 0.9
    targets = target_matrix(rest, real_gate.labels)
    before, after = real_gate.probabilities(joined(rest)), gate.probabilities(joined(rest))
    wider = np.concatenate([targets, np.zeros((len(rest), 1))], axis=1)
    lost = accuracy(before, targets) - accuracy(after, wider)
    assert lost < 0.01
    own = np.eye(len(gate.labels))[np.full(len(found), -1)]
    both = np.concatenate([after, found]), np.concatenate([wider, own])
    assert calibration_error(*both) < calibration_error(before, targets) + 0.02


def accuracy(found: Floats, targets: Floats) -> float:
    return float((np.take_along_axis(targets, found.argmax(axis=1)[:, None], axis=1) > 0).mean())


@pytest.fixture(scope="module")
def real_rows() -> dict[str, list[LabelledPrompt]]:
    folder = training_data()
    if folder is None:
        pytest.skip("needs the folder of training data beside the repository")
    rows = [row for row in read_prompts(sorted(folder.glob("*.jsonl"))) if len(row.labels) == 1]
    rows.sort(key=lambda row: hash_share(row.text, 3))
    apart = {family for _, family in SUBDOMAINS.values()}
    found = {
        name: [row for row in rows if row.family == family][:90]
        for name, (_, family) in SUBDOMAINS.items()
    }
    rest: dict[str, list[LabelledPrompt]] = {}
    for row in rows:
        if row.family not in apart and len(rest.setdefault(row.labels[0], [])) < 260:
            rest[row.labels[0]].append(row)
    return {
        **found,
        "trained": [row for part in rest.values() for row in part[:180]],
        "unseen": [row for part in rest.values() for row in part[180:]],
    }


@pytest.fixture(scope="module")
def real_vectors(
    real_rows: dict[str, list[LabelledPrompt]], encoder_dir: Path
) -> dict[str, Floats]:
    from retrieval.encoder import Encoder

    rows = [row for part in real_rows.values() for row in part]
    texts = list(dict.fromkeys(part for row in rows for part in parts(row.text)))
    vectors = Encoder(encoder_dir, threads=2).encode(texts)
    return dict(zip(texts, vectors, strict=True))


@pytest.fixture(scope="module")
def real_gate(real_rows: dict[str, list[LabelledPrompt]], real_vectors: dict[str, Floats]) -> Gate:
    gate, _ = train_gate(real_rows["trained"], remembered(real_vectors), epochs=8, variations=False)
    return gate


def remembered(vectors: dict[str, Floats]) -> Encode:
    """An encoder that knows these texts alone."""
    return lambda texts: np.stack([vectors[text] for text in texts]).astype(np.float32)


def test_taught_experts_keep_their_names_beside_their_arrays() -> None:
    rows = np.arange(6, dtype=np.float32).reshape(3, 2)
    known = Taught(("a", "b", "c"), rows, rows[:, 0], rows)
    left = known.without("b")
    assert left is not None and left.names == ("a", "c")
    np.testing.assert_array_equal(left.weight, rows[[0, 2]])
    assert (
        left.without("a") is not None
        and Taught(("a",), rows[:1], rows[:1, 0], rows).without("a") is None
    )
