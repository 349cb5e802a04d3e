"""Experts that are switched off: nothing of them runs, nobody is sent to them, callers are told."""

from __future__ import annotations

from typing import Any

import pytest
from test_router_routing import EXPERTS, check_invariants, toy_gate, word_vectors

from orchestrator.config import Config, ConfigError
from orchestrator.errors import CollegiumError, NotFound, PermissionDenied, from_response, to_body
from orchestrator.identity import EVERYONE, Principal
from orchestrator.placement import groups
from orchestrator.registry import standards
from orchestrator.replicas import local_spec
from orchestrator.request import ChatRequest
from orchestrator.task import Task, accept, model_names
from router.bars import judge_labels
from router.overrides import Overrides
from router.router import Router


def config(**changes: Any) -> Config:  # noqa: ANN401
    adapted = {"model": "base", "adapter": "x", "pinned": True}
    experts: dict[str, Any] = {
        "general": {"model": "base"},
        "code": adapted,
        "legal": adapted | {"enabled": False},
        "upstream": {
            "remote": {"base_url": "http://127.0.0.1:9/v1", "model": "none"},
            "enabled": False,
        },
    }
    return Config.check({"models": {"base": {"source": "unused"}}, "experts": experts | changes})


def accepted(
    principal: Principal = EVERYONE,
    **body: Any,  # noqa: ANN401
) -> Task:
    fields = {"messages": [{"role": "user", "content": "Hello"}], **body}
    return accept(ChatRequest.model_validate(fields), principal, config())


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"model": "legal"}, "model"),
        ({"model": "code+legal"}, "model"),
        ({"routing": {"weights": {"legal": 1.0}}}, "routing.weights.legal"),
        ({"routing": {"experts": ["code", "legal"]}}, "routing.experts"),
        ({"routing": {"preferences": {"legal": 1.0}}}, "routing.preferences.legal"),
    ],
)
def test_a_request_that_names_a_disabled_expert_is_told_so(
    body: dict[str, Any], param: str
) -> None:
    with pytest.raises(NotFound) as caught:
        accepted(**body)
    error = caught.value
    assert (error.status, error.param, error.code) == (404, param, "expert_disabled")
    assert "'legal', which is disabled in this service. Enabled: auto, general, code." in str(error)


def test_the_client_reads_it_back_as_what_it_is() -> None:
    with pytest.raises(NotFound) as caught:
        accepted(model="legal")
    body = to_body(caught.value).model_dump_json()
    found: CollegiumError = from_response(404, body, {})
    assert isinstance(found, NotFound) and found.code == "expert_disabled"


def test_a_key_that_may_ask_disabled_experts_alone_may_ask_nobody() -> None:
    with pytest.raises(PermissionDenied):
        accepted(Principal("t", experts=frozenset({"legal"}), collections=None))
    both = Principal("t", experts=frozenset({"legal", "code"}), collections=None)
    assert accepted(both).overrides.experts == ("code",)


def test_it_is_not_listed_and_nothing_of_it_is_started() -> None:
    assert model_names(config(), EVERYONE) == ["auto", "general", "code"]
    assert groups(config()) == [("general", "code")]
    spec = local_spec(config(), "base")
    assert spec.experts == (("general", None), ("code", "x"))
    assert spec.pinned == ("code",)
    assert config().disabled == ("legal", "upstream")


def test_the_generalist_cannot_be_disabled() -> None:
    with pytest.raises(ConfigError, match=r"experts\.general\.enabled.* this is the generalist"):
        config(general={"model": "base", "enabled": False})


def test_the_router_never_chooses_it_and_says_whose_turn_it_was() -> None:
    router = Router(toy_gate(), word_vectors, EXPERTS, "general", disabled=("legal",))
    decision = router.route([("user", "contract")])
    check_invariants(decision)
    assert decision.chosen == ("general",)
    assert "legal (" in decision.reason and "disabled in this service" in decision.reason
    by_name = {candidate.name: candidate.probability for candidate in decision.candidates}
    assert by_name["legal"] == 0.0
    whole = Router(toy_gate(), word_vectors, EXPERTS, "general").route([("user", "contract")])
    left = {c.name: c.probability for c in whole.candidates if c.name != "legal"}
    assert {name: by_name[name] for name in left} == pytest.approx(
        {name: p / sum(left.values()) for name, p in left.items()}
    )
    allowed = Overrides(experts=("general", "code", "multilingual"))
    restricted = Router(toy_gate(), word_vectors, EXPERTS, "general").route(
        [("user", "contract")], allowed
    )
    assert decision.weights() == restricted.weights()


def test_a_version_that_does_not_know_it_may_be_promoted() -> None:
    assert standards(config()).disabled == ("legal", "upstream")
    for disabled, kept in (((), False), (("legal",), True)):
        (lost, _) = judge_labels(
            ("code", "general"),
            ("code", "general", "legal"),
            ("code", "general", "legal"),
            disabled,
        )
        assert lost.kept is kept
