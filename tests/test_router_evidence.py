"""Evidence as a pure function: what a search found raises who reads it, within all limits."""

from __future__ import annotations

import json
import math
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from router.chances import Chances
from router.decision import Decision
from router.draw import Draw, propensity
from router.evidence import (
    DEFAULT_SCALE,
    EVIDENCE_FILE,
    UNSEEN,
    Clue,
    EvidenceError,
    Scale,
    SecondStage,
    raised,
)
from router.evidence_fit import Sightings, fit_scale
from router.exploration import explore
from router.overrides import Overrides
from router.policy import Policy, decide
from router.ranking import Ranking
from router.second_stage import weigh
from router.situation import CALM, Situation

GATE = {"general": 0.6, "code": 0.3, "legal": 0.1, "devices": 0.0}
SCALE = Scale(slope=10.0, centre=0.5)
MANUALS = Clue("manuals", 1.0)


def decision(
    overrides: Overrides | None = None,
    policy: Policy | None = None,
    situation: Situation = CALM,
    disabled: tuple[str, ...] = (),
    notes: tuple[str, ...] = (),
) -> Decision:
    policy = policy or Policy()
    verdict = decide(GATE, "general", policy, overrides or Overrides(), situation, disabled)
    return Decision(
        candidates=Ranking(Chances.of(verdict.probabilities), verdict.weights),
        chosen=tuple(verdict.weights),
        k=len(verdict.weights),
        reason=verdict.reason,
        fallback=verdict.abstained,
        abstained=verdict.abstained,
        router_version="x",
        seconds=0.0,
        vector=np.zeros(2, dtype=np.float32),
        second=SecondStage(policy, SCALE, notes),
    )


def weighed(clues: dict[str, Clue], overrides: Overrides | None = None, **more: object) -> Decision:
    first = decision(overrides, **more)  # type: ignore[arg-type]
    disabled = more.get("disabled", ())
    assert isinstance(disabled, tuple)
    situation = more.get("situation", CALM)
    assert isinstance(situation, Situation)
    given = overrides or Overrides()
    return weigh(first, clues, "general", given, situation, disabled=disabled)


def by_hand(shifts: dict[str, float]) -> dict[str, float]:
    mass = {
        name: p * math.exp(shifts.get(name, 0.0)) + 0.01 * (math.exp(shifts.get(name, 0.0)) - 1.0)
        for name, p in GATE.items()
    }
    total = math.fsum(mass.values())
    return {name: part / total for name, part in mass.items()}


def test_probabilities_rise_as_the_formula_says() -> None:
    shifts = {"legal": 1.5, "devices": 4.0}
    assert dict(raised(GATE, shifts)) == pytest.approx(by_hand(shifts))
    assert UNSEEN == 0.01


def test_without_a_shift_nothing_moves() -> None:
    assert dict(raised(GATE, {"devices": 0.0})) == pytest.approx(GATE)
    assert dict(raised(GATE, {"nobody": 3.0})) == pytest.approx(GATE)


def test_huge_shifts_overflow_nothing() -> None:
    found = raised(GATE, {"legal": 2000.0})
    assert found["legal"] == pytest.approx(1.0)
    assert math.fsum(found.values()) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("similarity", "shift"), [(-1.0, 0.0), (0.5, 0.0), (0.51, 0.1), (1.0, 5.0)]
)
def test_only_what_is_closer_than_the_centre_counts(similarity: float, shift: float) -> None:
    assert SCALE.shift(similarity) == pytest.approx(shift)


def test_evidence_moves_the_choice_and_says_so() -> None:
    found = weighed({"devices": MANUALS, "code": Clue("snippets", 0.4)})
    after = by_hand({"devices": 5.0})
    assert found.chosen[0] == "devices"
    assert dict(found.ranking.chances) == pytest.approx(after)
    assert math.fsum(found.weights().values()) == pytest.approx(1.0)
    (hint,) = found.hints
    assert (hint.expert, hint.collection, hint.similarity) == ("devices", "manuals", 1.0)
    assert (hint.before, hint.after) == (0.0, pytest.approx(after["devices"]))
    assert "a passage of manuals (cosine 1.00) moved devices from 0.00 to 0." in found.reason
    assert "evidence moved the choice from general and code to " in found.reason


def test_evidence_that_changes_no_choice_does_not_claim_to() -> None:
    found = weighed({"code": Clue("snippets", 0.505)})
    assert set(found.chosen) == {"general", "code"}
    assert "evidence moved" not in found.reason
    assert "moved code from 0.30 to" in found.reason


def test_what_leaned_the_gate_is_still_told() -> None:
    first = decision(notes=("locale de raised legal",))
    found = weigh(first, {"devices": MANUALS}, "general", Overrides(), CALM)
    assert "; locale de raised legal; " in found.reason


def test_the_generalist_gains_nothing() -> None:
    assert weighed({"general": Clue("everything", 1.0)}) == decision()


@pytest.mark.parametrize("clues", [{}, {"devices": Clue("manuals", 0.5)}, {"nobody": MANUALS}])
def test_nothing_close_leaves_the_decision_as_it_was(clues: dict[str, Clue]) -> None:
    assert weighed(clues) == decision()


def test_a_router_without_a_second_stage_is_obeyed() -> None:
    first = replace(decision(), second=None)
    assert weigh(first, {"devices": MANUALS}, "general", Overrides(), CALM) is first


def test_weights_of_the_caller_are_obeyed() -> None:
    found = weighed({"devices": MANUALS}, Overrides(weights={"legal": 1.0}))
    assert found.weights() == {"legal": 1.0}
    assert found.hints == ()


def test_experts_that_the_caller_did_not_allow_stay_out() -> None:
    overrides = Overrides(experts=("code", "general"))
    found = weighed({"devices": MANUALS, "code": Clue("snippets", 0.8)}, overrides)
    assert found.ranking.chances["devices"] == found.ranking.chances["legal"] == 0.0
    assert [hint.expert for hint in found.hints] == ["code"]
    assert "manuals" not in found.reason
    code, general = 0.3 / 0.9, 0.6 / 0.9
    raised_code = code * math.exp(3.0) + 0.01 * (math.exp(3.0) - 1.0)
    assert found.ranking.chances["code"] == pytest.approx(raised_code / (raised_code + general))


def test_disabled_experts_stay_out() -> None:
    found = weighed({"devices": MANUALS}, disabled=("devices",))
    assert found == decision(disabled=("devices",))


def test_an_expert_that_is_too_dear_is_not_chosen_for_its_evidence() -> None:
    situation = Situation(costs={"devices": 1.0})
    found = weighed({"devices": MANUALS}, Overrides(max_cost=0.5), situation=situation)
    assert "devices" not in found.chosen
    assert "over max_cost" in found.reason


def test_evidence_can_end_an_abstention() -> None:
    policy = Policy(min_confidence=0.7)
    assert decision(policy=policy).abstained
    found = weighed({"legal": Clue("statutes", 1.0)}, policy=policy)
    assert (found.chosen, found.abstained, found.fallback) == (("legal",), False, False)


def test_chance_draws_again_from_the_raised_probabilities() -> None:
    keys = [f"k{number}" for number in range(4000)]
    first = [explore(decision(), 0.3, key) for key in keys]
    clues = {"devices": MANUALS}
    found = [
        weigh(one, clues, "general", Overrides(), CALM, key=key)
        for one, key in zip(first, keys, strict=True)
    ]
    after = by_hand({"devices": 5.0})
    policy = weighed(clues).chosen
    for before, one in zip(first, found, strict=True):
        assert before.draw is not None and one.draw is not None
        assert one.draw.explored == before.draw.explored
        assert one.draw.policy == policy
        assert one.draw.propensity == pytest.approx(propensity(one.chosen, policy, after, 0.3))
        assert isinstance(one.draw, Draw)
    explored = [one.chosen[0] for one in found if one.draw and one.draw.explored]
    share = explored.count("devices") / len(explored)
    assert share == pytest.approx(after["devices"], abs=4 * math.sqrt(0.25 / len(explored)))


def test_a_decision_with_its_second_stage_survives_pickling() -> None:
    found = weighed({"devices": MANUALS})
    copy = pickle.loads(pickle.dumps(found))
    assert copy == found
    assert copy.second == found.second


def test_a_scale_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert Scale.load(tmp_path / "none") == DEFAULT_SCALE
    path = Scale(7.25, 0.4, {"rows": 30}).save(tmp_path / "new" / "folder")
    assert path.name == EVIDENCE_FILE
    found = Scale.load(path.parent)
    assert (found.slope, found.centre, dict(found.metadata)) == (7.25, 0.4, {"rows": 30})
    assert [one.name for one in path.parent.iterdir()] == [EVIDENCE_FILE]


@pytest.mark.parametrize(
    "body",
    ["", "[]", "{}", '{"slope": 1}', '{"slope": "x", "centre": 0}', '{"slope": -1, "centre": 0}'],
)
def test_a_broken_scale_is_named_with_its_file(tmp_path: Path, body: str) -> None:
    (tmp_path / EVIDENCE_FILE).write_text(body, encoding="utf-8")
    with pytest.raises(EvidenceError, match="slope|evidence.json"):
        Scale.load(tmp_path)


@pytest.mark.parametrize(("slope", "centre"), [(-1.0, 0.0), (math.inf, 0.0), (1.0, 1.5)])
def test_a_scale_out_of_range_is_refused(slope: float, centre: float) -> None:
    with pytest.raises(EvidenceError):
        Scale(slope, centre)


def drawn_sightings(slope: float, centre: float, count: int, seed: int = 0) -> Sightings:
    """Labels drawn from the very model, so that the right answer is known."""
    dice = np.random.default_rng(seed)
    probabilities = dice.dirichlet([1.5, 1.0, 1.0], size=count)
    similarities = dice.uniform(0.0, 1.0, size=(count, 3))
    similarities[:, 0] = -1.0
    nats = slope * np.maximum(0.0, similarities - centre)
    mass = probabilities * np.exp(nats) + 0.01 * (np.exp(nats) - 1.0)
    mass /= mass.sum(axis=1, keepdims=True)
    chosen = (mass.cumsum(axis=1) > dice.uniform(size=(count, 1))).argmax(axis=1)
    return Sightings(probabilities, similarities, np.eye(3)[chosen])


def test_a_fit_finds_the_scale_that_the_labels_were_drawn_from() -> None:
    found = fit_scale(drawn_sightings(8.0, 0.5, 6000))
    assert found.scale.slope == pytest.approx(8.0, abs=1.0)
    assert found.scale.centre == pytest.approx(0.5, abs=0.05)
    assert found.loss_after < found.loss_before
    assert found.accuracy_after > found.accuracy_before
    assert 0.0 < found.moved < 1.0


def test_a_fit_is_the_same_on_every_run() -> None:
    sightings = drawn_sightings(5.0, 0.3, 400)
    assert fit_scale(sightings) == fit_scale(sightings)


def test_no_scale_nearby_has_a_smaller_cost() -> None:
    sightings = drawn_sightings(6.0, 0.4, 500, seed=3)
    best = fit_scale(sightings).scale

    def cost(slope: float, centre: float) -> float:
        nats = slope * np.maximum(0.0, sightings.similarities - centre)
        mass = sightings.probabilities * np.exp(nats) + 0.01 * (np.exp(nats) - 1.0)
        shares = (mass / mass.sum(axis=1, keepdims=True))[sightings.targets > 0]
        return float(-np.log(shares).mean()) + slope**2 / (2 * 20.0**2 * 500)

    least = min(cost(s, c) for s in np.linspace(0, 20, 81) for c in np.linspace(0, 0.95, 96))
    assert cost(best.slope, best.centre) <= least + 1e-3


def test_where_similarity_says_nothing_the_slope_stays_small() -> None:
    dice = np.random.default_rng(1)
    probabilities = dice.dirichlet([1.0, 1.0, 1.0], size=3000)
    similarities = dice.uniform(0.0, 1.0, size=(3000, 3))
    chosen = (probabilities.cumsum(axis=1) > dice.uniform(size=(3000, 1))).argmax(axis=1)
    found = fit_scale(Sightings(probabilities, similarities, np.eye(3)[chosen]))
    assert found.moved < 0.05


def test_too_few_rows_and_empty_collections_are_refused() -> None:
    few = drawn_sightings(1.0, 0.5, 19)
    with pytest.raises(EvidenceError, match="19 labelled prompts are too few"):
        fit_scale(few)
    some = drawn_sightings(1.0, 0.5, 30)
    with pytest.raises(EvidenceError, match="collegium index add"):
        fit_scale(replace(some, similarities=np.full((30, 3), -1.0)))


def test_a_saved_scale_is_readable_json(tmp_path: Path) -> None:
    path = Scale(1.0, 0.5, {"figures": {"rows": 3}}).save(tmp_path)
    assert json.loads(path.read_text(encoding="utf-8")) == {
        "slope": 1.0,
        "centre": 0.5,
        "figures": {"rows": 3},
    }
