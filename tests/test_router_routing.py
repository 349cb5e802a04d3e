import hashlib
import math
import pickle
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

import router
from router import Decision, Gate, GateError, Overrides, Policy, Router, UnknownExpert
from tests.routing_data import empty_gate

EXPERTS = ("general", "code", "legal", "multilingual")
WEIGHTS = Path(router.__file__).parent / "weights"


def word_vectors(texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """A small encoder: one fixed random direction a word."""
    rows = []
    for text in texts:
        total = np.zeros(384)
        for word in text.casefold().split():
            seed = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=4).digest(), "big")
            total += np.random.default_rng(seed).normal(size=384)
        rows.append(total / max(float(np.linalg.norm(total)), 1e-9))
    return np.asarray(rows, dtype=np.float32)


def toy_gate() -> Gate:
    """A gate whose labels light up for the words python, contract and hola."""
    gate = empty_gate(("code", "general", "legal", "multilingual"), 384)
    for label, word in ((0, "python"), (2, "contract"), (3, "hola")):
        gate.weight[label, :384] = 30.0 * word_vectors([word])[0]
    gate.bias[:] = (-8.0, -2.0, -8.0, -8.0)
    return gate


@pytest.fixture
def toy() -> Router:
    return Router(toy_gate(), word_vectors, EXPERTS, "general", Policy())


def check_invariants(decision: Decision) -> None:
    assert math.isclose(math.fsum(c.probability for c in decision.candidates), 1.0, abs_tol=1e-9)
    weights = {c.name: c.weight for c in decision.candidates}
    assert math.isclose(math.fsum(weights.values()), 1.0, abs_tol=1e-9)
    assert {name for name, weight in weights.items() if weight > 0} == set(decision.chosen)
    assert decision.k == len(decision.chosen) >= 1
    chosen = [weights[name] for name in decision.chosen]
    assert chosen == sorted(chosen, reverse=True)


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("python", {"code"}),
        ("contract", {"legal"}),
        ("hola", {"multilingual"}),
        ("python contract", {"code", "legal"}),
        ("banana", {"general"}),
    ],
)
def test_words_reach_their_experts(toy: Router, text: str, chosen: set[str]) -> None:
    decision = toy.route([("user", text)])
    check_invariants(decision)
    assert set(decision.chosen) == chosen
    assert decision.router_version == toy.gate.version
    assert decision.seconds > 0.0


def test_the_decision_carries_the_query_vector(toy: Router) -> None:
    decision = toy.route([("user", "python")])
    np.testing.assert_allclose(decision.vector, word_vectors(["python"])[0], atol=1e-6)


def test_the_generalist_is_a_candidate_even_when_not_listed() -> None:
    decision = Router(toy_gate(), word_vectors, ("code",), "base").route([("user", "contract")])
    check_invariants(decision)
    assert {candidate.name for candidate in decision.candidates} == {"code", "base"}
    assert decision.chosen == ("base",)
    assert not decision.abstained


def test_a_gate_without_opinion_abstains_to_the_generalist() -> None:
    gate = empty_gate(("code", "general", "legal", "multilingual"), 384)
    decision = Router(gate, word_vectors, EXPERTS, "general").route([("user", "anything")])
    check_invariants(decision)
    assert decision.abstained and decision.fallback
    assert decision.chosen == ("general",)


def test_forced_weights_stand_in_the_decision(toy: Router) -> None:
    overrides = Overrides(weights={"legal": 7, "code": 3})
    decision = toy.route([("user", "hola")], overrides)
    check_invariants(decision)
    assert decision.weights() == {"legal": 0.7, "code": 0.3}
    assert not decision.fallback
    assert max(decision.candidates, key=lambda c: c.probability).name == "multilingual"


def test_only_allowed_experts_are_chosen(toy: Router) -> None:
    decision = toy.route([("user", "python contract")], Overrides(experts=("legal",)))
    check_invariants(decision)
    assert decision.weights() == {"legal": 1.0}
    assert {c.name for c in decision.candidates if c.probability == 0.0} == {
        "general",
        "code",
        "multilingual",
    }


def test_an_unknown_name_is_refused(toy: Router) -> None:
    with pytest.raises(UnknownExpert, match="medicine"):
        toy.route([("user", "python")], Overrides(experts=("medicine",)))


def test_an_encoder_of_another_size_is_refused() -> None:
    gate = empty_gate(("code", "general"), 100, encoder="small")
    with pytest.raises(GateError, match="100 numbers .small.; this encoder gives 384"):
        Router(gate, word_vectors, EXPERTS, "general").route([("user", "python")])


def test_threads_agree_with_a_single_one(toy: Router) -> None:
    texts = ["python", "contract", "hola", "python contract", "banana"] * 20
    alone = [toy.route([("user", text)]).weights() for text in texts]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda text: toy.route([("user", text)]).weights(), texts))
    assert together == alone


def test_a_decision_survives_pickling(toy: Router) -> None:
    decision = toy.route([("user", "python contract")])
    copy = pickle.loads(pickle.dumps(decision))
    assert copy == decision
    np.testing.assert_array_equal(copy.vector, decision.vector)


def test_exported_names_are_sorted_and_exist() -> None:
    assert router.__all__ == sorted(router.__all__)
    assert all(hasattr(router, name) for name in router.__all__)


def test_the_committed_weights_load_and_say_where_they_come_from() -> None:
    gate = Gate.load(WEIGHTS)
    assert gate.labels == ("code", "general", "legal", "multilingual")
    assert gate.vector_dimensions == 384
    licenses = {source["license"] for source in gate.metadata["data"]}
    assert not any("Debian-FAQ" in name or "Artistic" in name for name in licenses)
    assert "CC-BY-SA-4.0" in (WEIGHTS / "LICENSE").read_text(encoding="utf-8")
    assert gate.version in (WEIGHTS / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def committed(encoder_dir: Path) -> Router:
    from retrieval.encoder import Encoder

    return Router(Gate.load(WEIGHTS), Encoder(encoder_dir).encode, EXPERTS, "general")


# None of these prompts is a row of any training file.
ROUTED = [
    ("Write a Python function that reverses a linked list.", {"code"}),
    ("Why does my C++ destructor run twice?", {"code"}),
    ("What makes a contract legally binding, and when is a party in breach?", {"legal"}),
    ("Can a landlord raise the rent in the middle of a fixed-term tenancy?", {"legal"}),
    ("¿Qué tiempo hace hoy en Madrid y qué ropa debería ponerme?", {"multilingual"}),
    ("¿Cuál es la mejor receta de paella?", {"multilingual"}),
    ("Wie lange muss ich Kartoffeln kochen?", {"multilingual"}),
    ("Was ist die Hauptstadt von Frankreich?", {"multilingual"}),
    ("Hi there! How is your day going?", {"general"}),
    ("Which dessert goes well with strawberries?", {"general"}),
    (
        "Does the GPL allow me to link this C++ library into my proprietary program? "
        "Show the CMake line.",
        {"legal", "code"},
    ),
    (
        "Is it legal to use GPL code in a commercial app? Show an example in Python.",
        {"legal", "code"},
    ),
    ("¿Cómo ordeno una lista de diccionarios por clave en Python?", {"multilingual", "code"}),
    ("Wie sortiere ich ein Dictionary in Python nach Werten?", {"multilingual", "code"}),
]


@pytest.mark.models
@pytest.mark.parametrize(("text", "chosen"), ROUTED)
def test_committed_weights_route_real_prompts(
    committed: Router, text: str, chosen: set[str]
) -> None:
    decision = committed.route([("user", text)])
    check_invariants(decision)
    assert set(decision.chosen) == chosen, decision.reason
    assert not decision.abstained


@pytest.mark.models
def test_a_short_follow_up_is_routed_by_the_conversation(committed: Router) -> None:
    messages = [
        ("user", "How do I read a file line by line in Python?"),
        ("assistant", "Open it and iterate over the file object."),
        ("user", "And in Java?"),
    ]
    assert committed.route(messages).chosen == ("code",)
