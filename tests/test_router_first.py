"""The first stage: what it settles is what it is sure of, and nothing that the gate must see."""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from first_stages import SURE, sure_of, with_first
from taught_world import features, questions, world
from test_router_routing import EXPERTS, check_invariants, toy_gate, word_vectors

from router.decision import Decision
from router.first import LEAST_CONFIDENCE, FirstStage, safe_confidence
from router.gate import METADATA_FILE, WEIGHTS_FILE, Gate, GateError
from router.overrides import Overrides
from router.parts import WHOLE_CHARACTERS
from router.policy import Policy
from router.router import Router
from router.situation import CALM, Situation
from router.surface import SURFACE_DIMENSIONS, surface

Message = tuple[str, str]


def nothing_reads(texts: Sequence[str]) -> npt.NDArray[np.float32]:
    raise AssertionError(f"read {texts}")


def said(text: str) -> list[Message]:
    return [("user", text)]


def router(gate: Gate | None = None, policy: Policy | None = None, **more: bool) -> Router:
    return Router(gate or with_first(toy_gate()), word_vectors, EXPERTS, "general", policy, **more)


def test_probabilities_equal_sigmoids_raised_and_normalised() -> None:
    dice = np.random.default_rng(1)
    weight = dice.normal(size=(3, SURFACE_DIMENSIONS)).astype(np.float32)
    bias = dice.normal(size=3).astype(np.float32)
    first = FirstStage(weight, bias, temperature=1.7, threshold=0.5)
    for text in ("python", "Guten Tag", "def f(x):\n    return x"):
        row = surface(text)
        logits = [float(w.astype(float) @ row.astype(float)) for w in weight] + bias
        powers = (1.0 / (1.0 + np.exp(-logits))) ** (1.0 / 1.7)
        expected = powers / powers.sum()
        np.testing.assert_allclose(first.probabilities(row), expected, atol=1e-5)
        found = first.settle(row)
        assert (found is not None) == (expected.max() >= 0.5)


@pytest.mark.parametrize("units", [2, 300])
def test_many_units_are_no_different_from_few(units: int) -> None:
    weight = np.random.default_rng(2).normal(size=(units, SURFACE_DIMENSIONS)).astype(np.float32)
    first = FirstStage(weight, np.zeros(units, dtype=np.float32))
    row = surface("What is the difference between a list and a tuple?")
    sigmoid = 1.0 / (1.0 + np.exp(-(weight.astype(float) @ row.astype(float))))
    np.testing.assert_allclose(first.probabilities(row), sigmoid / sigmoid.sum(), atol=1e-5)


def cost(least: float, sure: list[float], right: list[bool], gate_right: list[bool]) -> int:
    """How many rows more are wrong where all of at least this confidence are settled."""
    settled = [one >= least for one in sure]
    found = [a if s else b for s, a, b in zip(settled, right, gate_right, strict=True)]
    return sum(gate_right) - sum(found)


@pytest.mark.parametrize("seed", range(20))
def test_the_safe_confidence_is_the_least_that_costs_no_more(seed: int) -> None:
    dice = np.random.default_rng(seed)
    # Few values, so that many rows share one.
    sure = np.round(dice.uniform(0.8, 1.0, 200), 2)
    right = dice.random(200) < sure - 0.02
    gate_right = dice.random(200) < 0.97
    found = safe_confidence(sure, right, gate_right, allowed=0.02)
    lists = sure.tolist(), right.tolist(), gate_right.tolist()
    fits = [
        least
        for least in sorted(set(sure.tolist()))
        if least >= LEAST_CONFIDENCE and cost(least, *lists) <= 0.02 * 200
    ]
    assert found == (fits[0] if fits else 2.0)


def test_where_every_settled_row_is_lost_nothing_is_settled() -> None:
    sure, all_right = np.linspace(0.9, 1.0, 50), np.ones(50, dtype=np.bool_)
    assert safe_confidence(sure, ~all_right, all_right) == 2.0
    assert safe_confidence(sure, all_right, ~all_right) == 0.9
    assert safe_confidence(np.full(50, 0.89), all_right, all_right) == 2.0


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"bias": np.zeros(3, dtype=np.float32)}, "do not fit"),
        ({"weight": np.zeros((4, 7), dtype=np.float32)}, "do not fit"),
        ({"bias": np.array([0, np.nan, 0, 0], dtype=np.float32)}, "finite"),
        ({"temperature": 0.0}, "temperature"),
        ({"threshold": float("nan")}, "threshold"),
    ],
)
def test_what_cannot_be_a_first_stage_is_refused(changes: dict[str, object], word: str) -> None:
    first = with_first(toy_gate()).first
    assert first is not None
    with pytest.raises(GateError, match=word):
        replace(first, **changes)  # type: ignore[arg-type]


def test_a_first_stage_of_other_units_is_refused() -> None:
    with pytest.raises(GateError, match="2 units, the gate 4"):
        replace(toy_gate(), first=sure_of(("code", "general"), {"x": "code"}))


def test_a_saved_first_stage_comes_back_and_settles_the_same(tmp_path: Path) -> None:
    gate = replace(with_first(toy_gate()), metadata={"seed": 7})
    gate.save(tmp_path)
    loaded = Gate.load(tmp_path)
    assert (loaded.version, loaded.metadata) == (gate.version, {"seed": 7})
    assert json.loads((tmp_path / METADATA_FILE).read_text())["format"] == 3
    for text in (*SURE, "something else"):
        np.testing.assert_equal(loaded.settle(surface(text)), gate.settle(surface(text)))
    assert pickle.loads(pickle.dumps(gate)).version == gate.version


def test_a_gate_without_one_is_written_as_before(tmp_path: Path) -> None:
    toy_gate().save(tmp_path)
    head = json.loads((tmp_path / METADATA_FILE).read_text())
    assert head["format"] == 1 and "first_stage" not in head
    loaded = Gate.load(tmp_path)
    assert loaded.first is None
    assert loaded.settle(surface("python")) is None


def test_the_version_changes_with_whatever_changes_a_decision() -> None:
    gate = with_first(toy_gate())
    first = gate.first
    assert first is not None
    others = [
        toy_gate(),
        with_first(toy_gate(), {"python": "legal"}),
        replace(gate, first=replace(first, bias=first.bias + 1)),
        replace(gate, first=replace(first, temperature=0.2)),
        replace(gate, first=replace(first, threshold=0.98)),
    ]
    assert len({gate.version, *(other.version for other in others)}) == 6


@pytest.mark.parametrize("numbers", [None, {}, {"temperature": 1.0}, {"temperature": "1"}, [1, 2]])
def test_a_folder_without_the_numbers_of_its_first_stage_is_refused(
    tmp_path: Path, numbers: object
) -> None:
    with_first(toy_gate()).save(tmp_path)
    path = tmp_path / METADATA_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | {"first_stage": numbers}))
    with pytest.raises(GateError, match="first_stage"):
        Gate.load(tmp_path)


def test_half_a_first_stage_is_refused(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    with_first(toy_gate()).save(tmp_path)
    tensors = load_file(tmp_path / WEIGHTS_FILE)
    del tensors["first.bias"]
    save_file(tensors, tmp_path / WEIGHTS_FILE)
    with pytest.raises(GateError, match=r"first\.bias"):
        Gate.load(tmp_path)


@pytest.mark.parametrize(("text", "expert"), SURE.items())
def test_a_sure_case_is_settled_without_the_encoder(text: str, expert: str) -> None:
    gate = with_first(toy_gate())
    decision = Router(gate, nothing_reads, EXPERTS, "general").route(said(text))
    check_invariants(decision)
    assert decision.weights() == {expert: 1.0}
    assert (decision.stage, decision.vector) == ("first", None)
    assert not (decision.fallback or decision.abstained)
    assert decision.router_version == gate.version
    assert "script and spelling alone" in decision.reason
    assert max(decision.candidates, key=lambda c: c.probability).name == expert
    assert pickle.loads(pickle.dumps(decision)) == decision


def whole(text: str | Sequence[Message], *given: object, gate: Gate | None = None) -> Decision:
    """What a gate without a first stage decides."""
    plain = replace(gate or with_first(toy_gate()), first=None)
    messages = said(text) if isinstance(text, str) else text
    return Router(plain, word_vectors, EXPERTS, "general").route(messages, *given)  # type: ignore[arg-type]


def same(found: Decision, expected: Decision) -> bool:
    """Whether they are the same but for the version."""
    return found.stage == "gate" and found == replace(expected, router_version=found.router_version)


def test_what_it_is_not_sure_of_the_gate_decides_as_if_alone() -> None:
    for text in ("hola", "python contract", "zebra"):
        found = router().route(said(text))
        assert same(found, whole(text))
        assert found.vector is not None


LONG = "python " * (WHOLE_CHARACTERS // 3)


@pytest.mark.parametrize(
    "messages",
    [
        [("user", "hola"), ("assistant", "Hi."), ("user", "python")],
        [("user", "python"), ("user", "python")],
        said(LONG),
    ],
)
def test_history_and_long_texts_are_the_gates(messages: list[Message]) -> None:
    gate = with_first(toy_gate(), {"python": "legal", LONG.strip(): "legal"}, 0.3)
    assert router(gate).route(said("python")).chosen == ("legal",)
    assert same(router(gate).route(messages), whole(messages))


def test_what_was_said_by_others_before_is_no_history() -> None:
    messages = [("system", "Be brief."), ("assistant", "What is it?"), ("user", "python")]
    assert router().route(messages).stage == "first"


@pytest.mark.parametrize(
    ("overrides", "situation"),
    [
        (Overrides(locale="es"), CALM),
        (Overrides(preferences={"legal": 0.5}), CALM),
        (Overrides(weights={"legal": 1.0}), CALM),
        (Overrides(min_confidence=0.9999), CALM),
        (Overrides(top_p=1.0), CALM),
        (Overrides(experts=("legal", "general")), CALM),
        (Overrides(), Situation(previous={"legal": 1.0})),
        (Overrides(), Situation(waits={"code": 9.0}, seconds_left=2.0)),
        (Overrides(max_cost=0.1), Situation(costs={"code": 0.2})),
    ],
)
def test_what_leans_or_limits_the_choice_is_the_gates(
    overrides: Overrides, situation: Situation
) -> None:
    found = router().route(said("python"), overrides, situation)
    assert same(found, whole("python", overrides, situation))


@pytest.mark.parametrize(
    ("overrides", "situation"),
    [
        (Overrides(top_k=1), CALM),
        (Overrides(experts=("code", "legal")), CALM),
        (Overrides(max_cost=0.3), Situation(costs={"code": 0.2})),
        (Overrides(), Situation(waits={"legal": 9.0}, seconds_left=2.0)),
        (Overrides(), Situation(biases={"code": -0.05, "legal": 0.05})),
    ],
)
def test_bounds_that_it_keeps_are_no_hindrance(overrides: Overrides, situation: Situation) -> None:
    found = router().route(said("python"), overrides, situation)
    assert (found.stage, found.chosen) == ("first", ("code",))


def test_a_disabled_expert_is_settled_by_the_gate_alone() -> None:
    gate = with_first(toy_gate())
    closed = Router(gate, word_vectors, EXPERTS, "general", disabled=("code",))
    found = closed.route(said("python"))
    assert found.stage == "gate" and "code" not in found.chosen
    assert closed.route(said("contract")).stage == "first"


def test_an_expert_that_is_not_configured_leaves_it_to_the_generalist() -> None:
    found = Router(with_first(toy_gate()), nothing_reads, ("legal",), "general").route(
        said("python")
    )
    assert (found.stage, found.chosen) == ("first", ("general",))
    check_invariants(found)


def test_a_promise_on_the_gates_confidence_is_kept_by_the_gate() -> None:
    policy = Policy(min_confidence=0.5, max_risk=0.1)
    assert router(policy=policy).route(said("python")).stage == "gate"


def test_two_likely_experts_or_too_little_confidence_are_the_gates() -> None:
    gate = with_first(toy_gate(), {"python": "code"}, 0.3)
    row = gate.settle(surface("zebra"))
    assert row is not None and row.max() == pytest.approx(0.5)
    for policy in (Policy(), Policy(min_confidence=0.6), Policy(top_k=1, min_confidence=0.6)):
        assert router(gate, policy).route(said("zebra")).stage == "gate"
    assert router(gate, Policy(top_k=1, min_confidence=0.4)).route(said("zebra")).stage == "first"


def test_it_can_be_switched_off() -> None:
    for off in (router(first_stage=False), router().without_first_stage()):
        assert same(off.route(said("python")), whole("python"))
    assert router().route(said("python")).stage == "first"


def test_settling_is_asked_for_by_itself() -> None:
    from router.features import skim

    made = router()
    settled = made.settle(skim(said("python")))
    assert settled == made.route(said("python"))
    assert made.settle(skim(said("hola"))) is None


def trained() -> tuple[Gate, str]:
    """A trained gate, and a text that it knows, of which its first stage is sure."""
    text = "fever clinic dose 1"
    return replace(world(), first=sure_of(world().units, {text: "general"}, 0.9)), text


def test_a_taught_expert_may_own_any_prompt_so_nothing_is_settled() -> None:
    gate, text = trained()
    assert gate.settle(surface(text)) is not None
    examples = features(questions("medical", 40))
    taught = gate.with_prototype("medical", gate.prototype(examples))
    assert taught.settle(surface(text)) is None
    experts = (*EXPERTS, "medical")
    from routing_data import word_vectors as words

    assert Router(taught, words, experts, "general").route(said(text)).chosen[0] == "medical"
    again = taught.without("medical", "general")
    assert again.version == gate.version
    np.testing.assert_array_equal(again.settle(surface(text)), gate.settle(surface(text)))


def test_a_forgotten_experts_prompts_go_to_its_heir_as_with_the_gate(tmp_path: Path) -> None:
    gate = with_first(toy_gate(), {**SURE, "hola": "multilingual"}).without("legal", "general")
    gate.save(tmp_path)
    loaded = Gate.load(tmp_path)
    experts = ("general", "code", "multilingual")
    cascade = Router(loaded, word_vectors, experts, "general")
    for text, expert in {"contract": "general", "python": "code", "hola": "multilingual"}.items():
        found = cascade.route(said(text))
        assert (found.stage, found.chosen) == ("first", (expert,))
        assert cascade.without_first_stage().route(said(text)).chosen == (expert,)
        check_invariants(found)
