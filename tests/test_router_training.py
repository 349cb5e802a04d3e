import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from router.calibration import log_sigmoid, softmax
from router.card import CARD_FILE, LICENSE_FILE
from router.dataset import (
    DatasetError,
    LabelledPrompt,
    balance,
    fingerprint,
    hash_share,
    read_prompts,
    water_fill,
)
from router.gate import Gate
from router.optimizer import FitSettings, fit, logit_gradient
from router.training import train_from_files, train_gate
from router.vectors import VectorCache

WORDS = {
    "code": "function loop compile array pointer debug".split(),
    "legal": "contract court statute liability clause tenant".split(),
    "general": "weather cake holiday music joke dinner".split(),
}


def word_vectors(texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """A small encoder: one fixed random direction a word."""
    rows = []
    for text in texts:
        total = np.zeros(32)
        for word in text.casefold().split():
            seed = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=4).digest(), "big")
            total += np.random.default_rng(seed).normal(size=32)
        rows.append(total / max(float(np.linalg.norm(total)), 1e-9))
    return np.asarray(rows, dtype=np.float32)


def prompt(text: str, *labels: str, source: str = "s", license: str = "MIT") -> LabelledPrompt:
    return LabelledPrompt(text, tuple(sorted(labels)), "en", source, license)


def prompts(count: int, seed: int = 0) -> list[LabelledPrompt]:
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        labels = [list(WORDS)[number % 3]]
        if number % 5 == 0 and labels != ["general"]:
            labels = ["code", "legal"]
        words = [str(rng.choice(WORDS[label])) for label in labels for _ in range(3)]
        rows.append(prompt(" ".join(words) + f" {rng.integers(1000)}", *labels))
    return rows


@pytest.fixture(scope="module")
def trained() -> Gate:
    gate, _ = train_gate(prompts(400), word_vectors, epochs=20, encoder_name="words")
    return gate


def test_the_gradient_equals_finite_differences_of_the_loss() -> None:
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(6, 4)) * 2
    targets = np.array([[1, 0, 0, 0], [0.5, 0.5, 0, 0], [0, 0, 1, 0]] * 2, dtype=np.float64)

    def loss(at: npt.NDArray[np.float64], unit_loss: float) -> float:
        sigmoid = 1.0 / (1.0 + np.exp(-at))
        truth = targets > 0
        units = -(np.log(sigmoid) * truth + np.log(1.0 - sigmoid) * ~truth).sum()
        shared = -(targets * np.log(sigmoid / sigmoid.sum(axis=1, keepdims=True))).sum()
        return float(unit_loss * units + (1.0 - unit_loss) * shared)

    for unit_loss in (0.0, 0.3, 1.0):
        found = logit_gradient(logits.astype(np.float32), targets.astype(np.float32), unit_loss)
        for row, column in np.ndindex(*logits.shape):
            step = np.zeros_like(logits)
            step[row, column] = 1e-5
            slope = (loss(logits + step, unit_loss) - loss(logits - step, unit_loss)) / 2e-5
            assert found[row, column] == pytest.approx(slope, abs=1e-4)


def test_fitting_separates_what_is_separable_and_repeats_itself() -> None:
    rng = np.random.default_rng(2)
    features = rng.normal(size=(300, 5)).astype(np.float32)
    truth = (features[:, 0] > 0).astype(int)
    targets = np.eye(2, dtype=np.float32)[truth]
    weights = np.ones(300, dtype=np.float32)
    seen: list[tuple[str, int, int]] = []
    settings = FitSettings(epochs=40, batch=64)
    first = fit(features, targets, weights, settings, 5, lambda *event: seen.append(event))
    second = fit(features, targets, weights, settings, 5)
    np.testing.assert_array_equal(first[0], second[0])
    found = softmax(log_sigmoid(features @ first[0].T + first[1])).argmax(axis=1)
    assert (found == truth).mean() > 0.95
    assert seen[-1] == ("train", 40, 40)


def test_a_trained_gate_tells_unseen_prompts_apart(trained: Gate) -> None:
    _, report = train_gate(prompts(400), word_vectors, epochs=20)
    assert report.held_out.accuracy > 0.95
    assert report.held_out.pairs_found is not None and report.held_out.pairs_found > 0.7
    assert report.held_out.ece < 0.15
    assert report.trained_rows + report.calibration_rows + report.held_out.prompts == 400
    counted = sum(sum(row.values()) for row in report.held_out.confusion.values())
    assert 0 < counted < report.held_out.prompts


def test_training_again_gives_the_same_gate(trained: Gate) -> None:
    again, _ = train_gate(prompts(400), word_vectors, epochs=20, encoder_name="words")
    other, _ = train_gate(prompts(400), word_vectors, epochs=20, encoder_name="words", seed=1)
    assert again.version == trained.version != other.version


def test_too_little_data_is_refused() -> None:
    with pytest.raises(DatasetError, match="too few"):
        train_gate(prompts(2), word_vectors)
    with pytest.raises(DatasetError, match="1 labels"):
        train_gate([prompt(f"p {n}", "code") for n in range(100)], word_vectors)


def write(path: Path, rows: Sequence[object]) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n", encoding="utf-8")
    return path


def as_fields(row: LabelledPrompt) -> dict[str, object]:
    return {
        "prompt": row.text,
        "domains": list(row.labels),
        "lang": "en",
        "source": row.source,
        "license": row.license,
    }


def test_files_become_weights_with_card_and_licence(tmp_path: Path) -> None:
    share_alike = [
        {"text": f"cake {n}", "domain": "general", "license": "CC-BY-SA-3.0", "source": "Cakes"}
        for n in range(30)
    ]
    data = write(tmp_path / "data.jsonl", [as_fields(row) for row in prompts(300)] + share_alike)
    unseen = write(tmp_path / "unseen.jsonl", [as_fields(row) for row in prompts(50, seed=9)])
    gate, report = train_from_files(
        [data], tmp_path / "out", word_vectors, encoder_name="words", evaluation=[unseen], epochs=5
    )
    loaded = Gate.load(tmp_path / "out")
    assert loaded.version == gate.version
    assert loaded.metadata["evaluation"]["unseen"]["prompts"] == 50
    assert report.evaluation["unseen"].accuracy > 0.9
    card = (tmp_path / "out" / CARD_FILE).read_text(encoding="utf-8")
    assert gate.version in card and "| Cakes | CC-BY-SA-3.0 | 30 |" in card
    assert "CC BY-SA 4.0" in card
    assert "Cakes (CC-BY-SA-3.0)" in (tmp_path / "out" / LICENSE_FILE).read_text(encoding="utf-8")


def test_permissive_data_needs_no_share_alike_licence(tmp_path: Path) -> None:
    data = write(tmp_path / "data.jsonl", [as_fields(row) for row in prompts(200)])
    train_from_files([data], tmp_path, word_vectors, encoder_name="words", epochs=1)
    assert "ShareAlike" not in (tmp_path / LICENSE_FILE).read_text(encoding="utf-8")


def test_a_label_that_no_training_row_has_is_named_in_evaluation(tmp_path: Path) -> None:
    data = write(tmp_path / "data.jsonl", [as_fields(row) for row in prompts(200)])
    unseen = write(tmp_path / "unseen.jsonl", [{"text": "x y", "domain": "medicine"}])
    with pytest.raises(DatasetError, match="medicine"):
        train_from_files(
            [data], tmp_path, word_vectors, encoder_name="w", evaluation=[unseen], epochs=1
        )


def test_rows_under_excluded_licences_are_left_out(tmp_path: Path) -> None:
    rows = [as_fields(prompt("a", "x", license="MIT"))]
    rows.append(as_fields(prompt("b", "x", license="Artistic-1.0-Perl OR GPL")))
    path = write(tmp_path / "rows.jsonl", rows)
    assert [row.text for row in read_prompts([path], ["artistic"])] == ["a"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not a JSON object"),
        ("[1]", "got list"),
        ('{"domain": "code"}', "`prompt`"),
        ('{"prompt": " ", "domain": "code"}', "`prompt`"),
        ('{"prompt": "x"}', "`domain`"),
        ('{"prompt": "x", "domains": [1]}', "`domain`"),
        ('{"prompt": "x", "domains": "code"}', "`domains`"),
    ],
)
def test_an_unusable_row_is_named_by_file_and_line(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "fine", "domain": "code"}\n\n' + line + "\n", encoding="utf-8")
    with pytest.raises(DatasetError, match=message) as caught:
        list(read_prompts([path]))
    assert "rows.jsonl:3: " in str(caught.value)


def test_shares_fill_small_sources_first_and_never_exceed_the_quota() -> None:
    assert water_fill({"a": 2, "b": 50, "c": 100}, 30) == {"a": 2, "b": 14, "c": 14}
    assert water_fill({"a": 2, "b": 3}, 30) == {"a": 2, "b": 3}
    assert sum(water_fill({"a": 9, "b": 9, "c": 9}, 10).values()) == 10


def test_balancing_drops_duplicates_and_treats_families_alike() -> None:
    rows = [prompt(f"spanish {n}", "x", source="help (es)") for n in range(40)]
    rows += [prompt(f"german {n}", "x", source="help (de)") for n in range(40)]
    rows += [prompt(f"other {n}", "x", source="other") for n in range(40)]
    rows += [prompt("OTHER 1!", "x", source="other")]
    rows += [prompt(f"both {n}", "x", "y") for n in range(40)]
    kept = balance(rows, per_label=20, per_pair=5)
    families = [row.family for row in kept if row.labels == ("x",)]
    assert (families.count("help"), families.count("other")) == (10, 10)
    assert sum(row.labels == ("x", "y") for row in kept) == 5
    assert balance(reversed(rows), per_label=20, per_pair=5) != ()
    assert len({fingerprint(row.text) for row in kept}) == len(kept)


def test_the_split_is_stable_and_even() -> None:
    assert hash_share("Hello, World!") == hash_share("hello world")
    found = np.array([hash_share(f"text {n}") for n in range(4_000)])
    assert found.min() >= 0.0 and found.max() < 1.0
    assert (found < 0.8).mean() == pytest.approx(0.8, abs=0.02)
    assert hash_share("a", 0) != hash_share("a", 1)


def test_vectors_are_encoded_once_and_kept_apart_by_encoder(tmp_path: Path) -> None:
    calls: list[int] = []

    def counting(texts: Sequence[str]) -> npt.NDArray[np.float32]:
        calls.append(len(texts))
        return word_vectors(texts)

    texts = ["one two three", "one", "one two three", "four"]
    path = tmp_path / "deep" / "vectors.sqlite"
    seen: list[tuple[str, int, int]] = []
    first = VectorCache(path, counting, "a", batch=2).encode(texts, lambda *e: seen.append(e))
    np.testing.assert_allclose(first, word_vectors(texts), atol=1e-7)
    assert sum(calls) == 3
    assert seen[-1] == ("encode", 4, 4)
    np.testing.assert_array_equal(VectorCache(path, counting, "a")(texts), first)
    assert sum(calls) == 3
    VectorCache(path, counting, "b")(texts)
    assert sum(calls) == 6
