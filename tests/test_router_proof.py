"""The whole proof, of routers whose worth is known beforehand."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from routing_data import EXPERTS, gate, prompts, table, word_vectors

from router.background import Background
from router.evaluation import read
from router.figures import plain
from router.gate import Gate
from router.losses import LossError, LossTable
from router.memory import EncoderMemory
from router.novelty import (
    DISTANCE_NATS,
    SHRINKAGE,
    distances,
    measure_novelty,
    unfamiliarity,
    without,
)
from router.peers import Lessons, PeerError, fit_peers, lessons
from router.plots import draw
from router.proof import Evidence, prove
from router.report import markdown
from router.router import Router
from router.semantic import check_interpreter, semantic_router
from router.training import train_gate
from router.trials import Floats, run_trials


@pytest.fixture(scope="module")
def good() -> Gate:
    return gate()


def evidence(gate: Gate, count: int = 240, **more: Any) -> Evidence:  # noqa: ANN401
    memory = EncoderMemory(word_vectors)
    router = Router(gate, memory, EXPERTS, "general")
    rows = prompts(count, seed=99)
    given = {"losses": table(rows), "robust_rows": 5, "resamples": 100, **more}
    return Evidence(router, memory, rows, **given)


def shuffled_labels(gate: Gate) -> Gate:
    """A gate whose opinions have nothing to do with the prompts."""
    dice = np.random.default_rng(0)
    weight = dice.normal(size=gate.weight.shape).astype(np.float32)
    return replace(gate, weight=weight, first=None)


@pytest.fixture(scope="module")
def proof(good: Gate) -> dict[str, Any]:
    return prove(evidence(good))


def test_a_good_router_scores_as_its_trials_say(good: Gate, proof: dict[str, Any]) -> None:
    given = evidence(good)
    trials = run_trials(given.router, given.rows)
    single = [n for n, row in enumerate(given.rows) if len(row.labels) == 1]
    right = [
        max(zip(trials.probabilities[n], EXPERTS, strict=True))[1] in given.rows[n].labels
        for n in single
    ]
    assert proof["accuracy"]["value"] == pytest.approx(np.mean(right), abs=1e-6)
    assert proof["accuracy"]["low"] <= proof["accuracy"]["value"] <= proof["accuracy"]["high"]
    assert proof["accuracy"]["value"] > 0.9
    assert set(proof["domains"]) == {*EXPERTS, "mixed"}
    counted = sum(sum(row.values()) for row in proof["confusion"].values())
    assert counted == len(single)
    assert sum(one["rows"] for one in proof["calibration"]["bins"]) == len(given.rows)
    assert sum(proof["decisions"]["by_count"].values()) == len(given.rows)


def test_a_good_router_beats_every_control(proof: dict[str, Any]) -> None:
    regret = proof["regret"]
    for name in ("shuffled", "shuffled mix", "uniform", "best single", "generalist"):
        assert regret["beats"][name]
        assert (
            regret["routers"][name]["macro"]["value"]
            > regret["routers"]["router"]["macro"]["value"]
        )
    assert not regret["beats"]["oracle"]
    assert regret["routers"]["oracle"]["macro"]["value"] == 0.0
    assert regret["over_best_single"]["value"] < 0.3
    assert regret["decisive"]["accuracy"]["value"] > 0.85


def test_the_regret_is_that_of_the_leaders(good: Gate, proof: dict[str, Any]) -> None:
    given = evidence(good)
    assert given.losses is not None
    sums: dict[str, list[float]] = {}
    for row in given.rows:
        decision = given.router.route([("user", row.text)])
        found = given.losses.of(row.text)
        assert found is not None
        losses = dict(zip(given.losses.experts, found.losses, strict=True))
        name = row.labels[0] if len(row.labels) == 1 else "mixed"
        sums.setdefault(name, []).append(losses[decision.chosen[0]] - min(losses.values()))
    expected = np.mean([np.mean(values) for values in sums.values()])
    assert proof["regret"]["routers"]["router"]["macro"]["value"] == pytest.approx(
        expected, abs=1e-6
    )


def test_the_first_stage_has_a_section_of_its_own(good: Gate, proof: dict[str, Any]) -> None:
    found = proof["first_stage"]
    assert found["threshold"] == pytest.approx(good.first.threshold if good.first else None)
    assert found["share"]["value"] > 0.5
    assert found["gate"]["value"] - found["cascade"]["value"] == pytest.approx(
        found["loss"]["value"], abs=1e-6
    )
    assert proof["times"]["settled"]["p50_ms"] <= proof["times"]["settled"]["p99_ms"]
    assert "## The first stage" in markdown(proof)
    plain = prove(evidence(replace(good, first=None), 40, robust_rows=0))
    assert plain["first_stage"] is None and plain["times"]["settled"] is None
    assert "## The first stage" not in markdown(plain)


def by_ranks(confidences: Floats, regrets: Floats, alpha: float, epsilon: float) -> float:
    """Accept the surest quarter, whatever it costs."""
    return float(np.quantile(confidences, 0.75))


def test_promise_and_risk_are_those_of_the_gate_that_keeps_them(good: Gate) -> None:
    assert good.first is not None
    # A first stage that settles everything, and nearly all of it wrongly.
    weight, bias = (np.roll(one, 1, axis=0) for one in (good.first.weight, good.first.bias))
    wild = replace(good.first, weight=weight, bias=bias, threshold=1e-6)
    given = {"threshold": by_ranks, "robust_rows": 0}
    mixed = prove(evidence(replace(good, first=wild), **given))
    alone = prove(evidence(replace(good, first=None), **given))
    assert mixed["first_stage"]["share"]["value"] > 0.5
    assert mixed["accuracy"]["value"] < alone["accuracy"]["value"] - 0.3
    assert mixed["promise"] == alone["promise"]
    assert mixed["risk_coverage"] == alone["risk_coverage"]
    assert mixed["regret"]["risk_coverage"] == alone["regret"]["risk_coverage"]
    assert mixed["calibration"]["ece"] > alone["calibration"]["ece"] + 0.1
    assert mixed["calibration"]["gate"]["ece"] == alone["calibration"]["ece"]
    assert f"{alone['calibration']['ece']:.4f} |" in markdown(mixed)


def test_a_random_router_beats_nothing_and_the_report_says_so(good: Gate) -> None:
    found = prove(evidence(shuffled_labels(good), robust_rows=0))
    assert found["accuracy"]["value"] < 0.6
    assert not found["regret"]["beats"]["oracle"]
    assert found["regret"]["routers"]["router"]["macro"]["value"] > 0.1
    assert found["robustness"] is None


def test_the_figures_are_json_and_repeat_themselves(good: Gate, proof: dict[str, Any]) -> None:
    again = prove(evidence(good))
    for part in (proof, again):
        json.dumps(part, allow_nan=False)
    assert {k: v for k, v in again.items() if k != "times"} == {
        k: v for k, v in proof.items() if k != "times"
    }


def test_without_losses_there_is_no_regret_and_a_page_all_the_same(good: Gate) -> None:
    found = prove(evidence(good, 40, losses=None))
    assert found["regret"] is None and found["promise"] is None
    page = markdown(found)
    assert "## Accuracy" in page and "## Regret" not in page


def test_losses_of_other_rows_leave_regret_out(good: Gate) -> None:
    found = prove(evidence(good, 40, losses=table(prompts(5, seed=7)), robust_rows=0))
    assert found["regret"] is None


def test_losses_of_other_experts_are_refused(good: Gate) -> None:
    with pytest.raises(LossError, match="multilingual"):
        prove(evidence(good, 40, losses=LossTable(("code", "legal", "general"), ("",) * 3)))


def test_languages_absent_from_training_must_reach_their_expert(good: Gate) -> None:
    found = prove(evidence(good, robust_rows=0, seen_languages=frozenset({"en", "de"})))
    unseen = found["unseen_languages"]
    assert set(unseen["by_language"]) == {"es"}
    assert unseen["chosen"]["value"] > 0.9
    known = prove(evidence(good, 40, robust_rows=0, seen_languages=frozenset({"es"})))
    assert known["unseen_languages"] is None


def test_the_promise_is_tried_with_the_threshold_that_is_handed_in(good: Gate) -> None:
    found = prove(evidence(good, robust_rows=0, threshold=lambda c, r, a, e: float("inf")))
    assert [one["alpha"] for one in found["promise"]["tries"]] == [0.05, 0.1, 0.2]
    assert all(one["kept"] == 1.0 and one["routed"] == 0.0 for one in found["promise"]["tries"])


def test_the_gate_knows_what_it_does_not_know(good: Gate) -> None:
    rows = [row for row in prompts(300, seed=5) if len(row.labels) == 1]
    found = measure_novelty(good, rows, word_vectors, "general", resamples=50)
    assert found is not None
    assert found.auroc.value > 0.9
    assert found.outside + found.inside == len(rows)
    assert set(found.by_family) == {"general"}
    assert np.isfinite(unfamiliarity(good, rows, word_vectors, "general")).all()
    assert measure_novelty(good, without(rows, "general"), word_vectors, "general") is None


def test_a_gate_apart_never_saw_the_generalists_rows() -> None:
    rows = without(prompts(600, seed=1), "general")
    apart, _ = train_gate(rows, word_vectors, epochs=20)
    assert "general" not in apart.labels
    found = measure_novelty(apart, prompts(300, seed=5), word_vectors, "general", resamples=50)
    assert found is not None
    assert found.auroc.value > 0.6


def test_distances_are_those_of_mahalanobis_to_the_nearest_label() -> None:
    dice = np.random.default_rng(3)
    targets = np.eye(3, dtype=np.float32)[dice.integers(0, 3, size=90)]
    # Nobody has the last label, and one prompt is of two.
    targets = np.pad(targets, ((0, 0), (0, 1)))
    targets[0] = [0.5, 0.5, 0.0, 0.0]
    vectors = (dice.normal(size=(90, 5)) + 4.0 * targets[:, :1]).astype(np.float16)
    asked = dice.normal(size=(20, 5)).astype(np.float32)
    rows, means = vectors.astype(np.float64), []
    for label in range(3):
        share = targets[:, label].astype(np.float64)
        means.append(sum(s * row for s, row in zip(share, rows, strict=True)) / share.sum())
    spread = np.zeros((5, 5))
    for row, shares in zip(rows, targets, strict=True):
        rest = row - sum(s * mean for s, mean in zip(shares, means, strict=False))
        spread += np.outer(rest, rest) / 90
    spread = (1 - SHRINKAGE) * spread + SHRINKAGE * np.trace(spread) / 5 * np.eye(5)
    inverse = np.linalg.inv(spread)

    def nearest(row: Floats) -> float:
        return min(float((row - mean) @ inverse @ (row - mean)) for mean in means)

    unit = np.mean([nearest(row) for row in rows])
    logits = np.zeros((90, 4), dtype=np.float32)
    found = distances(asked, Background(vectors, logits, targets))
    by_hand = [nearest(row.astype(np.float64)) / unit for row in asked]
    np.testing.assert_allclose(found, by_hand, rtol=1e-9)


def test_unfamiliarity_is_the_surest_units_logit_and_the_distance(good: Gate) -> None:
    rows = prompts(60, seed=5)
    bare = replace(good, background=None)
    reading = read(rows, word_vectors)
    logits = reading.features @ good.weight.T + good.bias
    place = good.labels.index("general")
    surest = np.delete(logits, place, axis=1).max(axis=1)
    alone = unfamiliarity(bare, rows, word_vectors, "general")
    np.testing.assert_allclose(alone, -surest, rtol=1e-4, atol=1e-4)
    known = good.known_background()
    # Rows of the generalist are no neighbours, and moving them changes nothing.
    own = known.targets[:, place] > 0.0
    assert own.any()
    moved = known.vectors.copy()
    moved[own] += 1.0
    found = unfamiliarity(good, rows, word_vectors, "general")
    other = replace(good, background=replace(known, vectors=moved))
    np.testing.assert_array_equal(found, unfamiliarity(other, rows, word_vectors, "general"))
    apart = distances(reading.vectors(32), known.without([place]))
    np.testing.assert_allclose(found - alone, DISTANCE_NATS * apart, rtol=1e-9)


def test_a_gate_that_knows_the_generalist_alone_has_no_distances(good: Gate) -> None:
    known = good.known_background()
    others = [good.labels.index(name) for name in EXPERTS if name != "general"]
    lone = replace(good, background=known.without(others))
    rows = prompts(20, seed=5)
    np.testing.assert_array_equal(
        unfamiliarity(lone, rows, word_vectors, "general"),
        unfamiliarity(replace(good, background=None), rows, word_vectors, "general"),
    )


def test_peers_learn_and_stand_in_the_same_table(good: Gate) -> None:
    pytest.importorskip("sklearn")
    taught = prompts(300, seed=1)
    known = table(taught).matrix([row.text for row in taught], EXPERTS)
    vectors = word_vectors([row.text for row in taught])
    peers = fit_peers(lessons(taught, vectors, EXPERTS, known))
    names = [peer.name for peer in peers]
    assert names == ["k nearest neighbours", "logistic regression", "k nearest neighbours, losses"]
    found = prove(evidence(good, robust_rows=0, peers=peers))
    assert list(found["peers"])[0] == "router"
    for name in names:
        assert found["peers"][name]["accuracy"]["value"] > 0.8
        assert found["peers"][name]["p50_ms"] > 0.0
        assert name in found["regret"]["over_peers"]
        assert name in found["regret"]["routers"]
    page = markdown(found)
    assert "## Peers" in page and "k nearest neighbours, losses" in page


def test_neighbours_are_those_of_a_brute_force_search() -> None:
    pytest.importorskip("sklearn")
    dice = np.random.default_rng(0)
    vectors = dice.normal(size=(200, 8)).astype(np.float32)
    labels = tuple("ab"[int(v[0] > 0)] for v in vectors)
    (peer, *_) = fit_peers(Lessons(vectors, labels, ("a", "b")))
    asked = dice.normal(size=(50, 8)).astype(np.float32)
    answers = peer.answer(asked)
    k = int(answers.setting.removeprefix("k = "))
    for vector, name in zip(asked, answers.names, strict=True):
        near = np.argsort(((vectors - vector) ** 2).sum(axis=1))[:k]
        votes = [labels[n] for n in near]
        assert votes.count(name) * 2 >= k
    assert len(answers.seconds) == 50 and (answers.seconds > 0.0).all()


def test_a_prompt_of_two_experts_teaches_both() -> None:
    rows = prompts(20)
    taught = lessons(rows, word_vectors([row.text for row in rows]), EXPERTS)
    assert len(taught.labels) == sum(len(row.labels) for row in rows)
    np.testing.assert_array_equal(taught.vectors[0], taught.vectors[1])
    assert taught.labels[:2] == ("code", "multilingual")


FAKE = """
import numpy as np

class DenseEncoder:
    def __init__(self, name):
        pass

class Route:
    def __init__(self, name, utterances=()):
        self.name, self.utterances = name, utterances

class IndexedRouter:
    def __init__(self, encoder, routes, aggregation, top_k):
        self.encoder, self.good = encoder, (aggregation, top_k) == ("sum", 20)
        self.rows = [(r.name, np.array(encoder([u])[0])) for r in routes for u in r.utterances]

    async def acall(self, text):
        (vector,) = await self.encoder.acall([text])
        order = sorted(self.rows, key=lambda row: -row[1] @ np.array(vector))
        return Route(order[0 if self.good else -1][0])
"""


def interpreter(folder: Path, package: dict[str, str]) -> str:
    """This interpreter with a semantic_router of its own."""
    (folder / "semantic_router").mkdir()
    for name, text in package.items():
        (folder / "semantic_router" / name).write_text(text)
    script = folder / "python"
    script.write_text(f'#!/bin/sh\nPYTHONPATH="{folder}" exec "{sys.executable}" "$@"\n')
    script.chmod(0o755)
    return str(script)


def test_semantic_router_is_asked_in_its_own_interpreter_with_our_vectors(tmp_path: Path) -> None:
    package = {"__init__.py": FAKE, "encoders.py": "from semantic_router import *"}
    python = interpreter(tmp_path, package)
    check_interpreter(python)
    taught = prompts(120, seed=1)
    vectors = word_vectors([row.text for row in taught])
    given = lessons(taught, vectors, EXPERTS)
    asked = word_vectors([row.text for row in prompts(40, seed=2)])
    answers = semantic_router(python, given).answer(asked)
    expected = [given.labels[(given.vectors @ vector).argmax()] for vector in asked]
    assert list(answers.names) == expected
    assert answers.setting == "aggregation sum, top_k 20"
    assert answers.seconds.shape == (40,) and (answers.seconds > 0.0).all()


def test_an_interpreter_without_semantic_router_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PeerError, match="cannot be run"):
        check_interpreter(str(tmp_path / "python"))
    python = interpreter(tmp_path, {"__init__.py": "raise ImportError('it is broken')"})
    with pytest.raises(PeerError, match="has no semantic-router 1 .*it is broken"):
        check_interpreter(python)
    given = Lessons(np.eye(2, dtype=np.float32), ("a", "b"), ("a", "b"))
    with pytest.raises(PeerError, match="semantic-router failed"):
        semantic_router(python, given).answer(np.eye(2, dtype=np.float32))


def test_the_page_shows_the_figures(proof: dict[str, Any]) -> None:
    findings = [{"metric": "accuracy.value", "value": 0.5, "bound": ">= 0.9", "reached": False}]
    page = markdown(proof, ["risk.svg"], findings)
    assert f"{proof['accuracy']['value']:.3f} [" in page
    assert f"{proof['calibration']['ece']:.4f}" in page
    assert "| `accuracy.value` | 0.5000 | >= 0.9 | **no** |" in page
    assert "![risk](risk.svg)" in page
    for name in proof["robustness"]:
        assert f"| {name}: " in page
    tables = [line for line in page.splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in tables)


def test_plots_are_drawn_the_same_each_time(proof: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    first, second = tmp_path / "a", tmp_path / "b"
    for folder in (first, second):
        folder.mkdir()
        names = draw(proof, folder)
        assert set(names) == {
            "reliability.svg",
            "risk.svg",
            "confusion.svg",
            "regret.svg",
            "robustness.svg",
        }
    for name in names:
        assert (first / name).read_bytes() == (second / name).read_bytes()
        assert "<svg" in (first / name).read_text(encoding="utf-8")


def test_numbers_that_are_not_finite_become_null() -> None:
    value = {"a": float("nan"), "b": [np.float64(1.5), np.int64(2)], "c": float("inf"), "d": "x"}
    assert plain(value) == {"a": None, "b": [1.5, 2], "c": None, "d": "x"}
