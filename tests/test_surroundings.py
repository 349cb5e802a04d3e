"""What a gateway tells the router: prices, queues and sessions, each only where it is asked for."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from in_process import configuration

from orchestrator.config import Config
from orchestrator.errors import InvalidRequest, NotFound
from orchestrator.identity import EVERYONE, Principal
from orchestrator.loads import Loads
from orchestrator.placement import groups
from orchestrator.registry import open_policy
from orchestrator.request import ChatRequest
from orchestrator.surroundings import Surroundings
from orchestrator.task import Task, accept
from router.decision import Candidate, Decision
from router.gate import GateError
from router.situation import CALM
from tests.routing_data import empty_gate

PROMPT = "x" * 400


class Fixed(Loads):
    """Queues of given lengths."""

    def __init__(self, config: Config, seconds: dict[str, float]) -> None:
        super().__init__(groups(config))
        self.seconds = seconds

    def waits(self) -> dict[str, float]:
        return self.seconds


def config(folder: Path, **sections: Any) -> Config:  # noqa: ANN401
    return configuration(folder, folder, **sections)


def priced(folder: Path) -> Config:
    experts = config(folder).model_dump(mode="json")["experts"]
    experts["mirror"]["price"] = {"input": 5.0, "output": 20.0}
    experts["code"]["price"] = {"output": 1.0}
    return config(folder, experts=experts)


def task(settings: Config, principal: Principal = EVERYONE, **body: Any) -> Task:  # noqa: ANN401
    fields = {"messages": [{"role": "user", "content": PROMPT}], **body}
    return accept(ChatRequest.model_validate(fields), principal, settings)


def decision(*, abstained: bool = False, **weights: float) -> Decision:
    return Decision(
        candidates=tuple(Candidate(name, 0.5, weight) for name, weight in weights.items()),
        chosen=tuple(weights),
        k=len(weights),
        reason="",
        fallback=abstained,
        abstained=abstained,
        router_version="",
        seconds=0.0,
        vector=np.zeros(1, dtype=np.float32),
    )


def test_a_request_that_asks_for_nothing_is_routed_in_calm(tmp_path: Path) -> None:
    settings = priced(tmp_path)
    around = Surroundings(settings, Fixed(settings, {}))
    assert around.situation(task(settings)) == CALM


def test_an_answer_costs_its_prompt_at_four_characters_a_token_and_its_longest_text(
    tmp_path: Path,
) -> None:
    settings = priced(tmp_path)
    around = Surroundings(settings, Fixed(settings, {}))
    costs = around.situation(task(settings, max_tokens=50, routing={"max_cost": 1.0})).costs
    assert set(costs) == set(settings.experts)
    assert costs["mirror"] == pytest.approx((100 * 5.0 + 50 * 20.0) / 1e6)
    assert costs["code"] == pytest.approx(50 * 1.0 / 1e6)
    assert costs["general"] == 0.0


def test_the_generalist_stands_in_only_for_what_may_be_spent(tmp_path: Path) -> None:
    settings = priced(tmp_path)
    around = Surroundings(settings, Fixed(settings, {}))
    asked = task(settings, max_tokens=50, routing={"max_cost": 0.001})
    assert around.affords(asked, "general") and around.affords(asked, "code")
    assert not around.affords(asked, "mirror")
    assert around.affords(task(settings), "mirror")


def test_queues_are_told_where_there_is_a_deadline(tmp_path: Path) -> None:
    settings = config(tmp_path, router={"load_balance": False})
    around = Surroundings(settings, Fixed(settings, {"code": 2.0}))
    found = around.situation(task(settings, routing={"deadline_ms": 5000}))
    assert found.waits == {"code": 2.0}
    assert found.seconds_left is not None and 4.0 < found.seconds_left <= 5.0
    assert found.biases == {}
    assert around.situation(task(settings)) == CALM


@pytest.mark.parametrize(
    ("placement", "remote", "given", "balances"),
    [
        ("together", False, None, False),
        ("together", True, None, True),
        ("apart", False, None, True),
        ("apart", False, False, False),
        ("together", False, True, True),
    ],
)
def test_balance_is_kept_where_there_is_something_to_choose_between(
    tmp_path: Path, placement: str, remote: bool, given: bool | None, balances: bool
) -> None:
    experts = config(tmp_path).model_dump(mode="json")["experts"]
    if not remote:
        del experts["mirror"]
    sections = {"experts": experts, "placement": placement, "router": {"load_balance": given}}
    settings = config(tmp_path, **sections)
    around = Surroundings(settings, Fixed(settings, {"code": 20.0}))
    biases = around.situation(task(settings)).biases
    assert bool(biases) is balances
    if balances:
        assert biases["code"] == pytest.approx(-0.01)


def test_a_session_is_told_what_answered_it_last(tmp_path: Path) -> None:
    settings = config(tmp_path)
    around = Surroundings(settings, Fixed(settings, {}))
    asked = task(settings, routing={"session": "s"})
    assert around.situation(asked).previous == {}
    around.remember(asked, decision(code=0.7, legal=0.3))
    assert around.situation(asked).previous == {"code": 0.7, "legal": 0.3}
    other = task(settings, Principal("other"), routing={"session": "s"})
    assert around.situation(other).previous == {}
    assert around.situation(task(settings)) == CALM


def test_a_decision_by_which_nobody_was_sure_is_not_remembered(tmp_path: Path) -> None:
    settings = config(tmp_path)
    around = Surroundings(settings, Fixed(settings, {}))
    asked = task(settings, routing={"session": "s"})
    around.remember(asked, decision(code=1.0))
    around.remember(asked, decision(general=1.0, abstained=True))
    assert around.situation(asked).previous == {"code": 1.0}


def test_a_request_without_a_session_leaves_none_behind(tmp_path: Path) -> None:
    settings = config(tmp_path)
    around = Surroundings(settings, Fixed(settings, {}))
    around.remember(task(settings), decision(code=1.0))
    assert around.situation(task(settings, routing={"session": "None"})).previous == {}


def headed(settings: Config, header: str, **routing: str) -> Task:
    body = {"messages": [{"role": "user", "content": "x"}], "routing": routing or None}
    return accept(ChatRequest.model_validate(body), EVERYONE, settings, header)


def test_the_header_names_a_session_as_the_body_does(tmp_path: Path) -> None:
    settings = config(tmp_path)
    assert headed(settings, "s").session == "s"
    assert headed(settings, "s", session="s").session == "s"
    with pytest.raises(InvalidRequest, match="two sessions") as refused:
        headed(settings, "s", session="t")
    assert refused.value.param == "routing.session"
    for header in ("", "x" * 129):
        with pytest.raises(InvalidRequest, match="1 to 128") as refused:
            headed(settings, header)
        assert refused.value.param == "x-session-id"


def test_a_preference_for_a_stranger_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="`routing.preferences.cooking` names") as refused:
        task(config(tmp_path), routing={"preferences": {"cooking": 1}})
    assert refused.value.param == "routing.preferences.cooking"


def test_the_promise_of_the_gate_becomes_the_confidence_of_the_policy(tmp_path: Path) -> None:
    thresholds = {"conformal": {"thresholds": {"0.05": 0.91, "0.1": 0.66}}}
    plain = empty_gate(("code", "general"), 8)
    gate = type(plain)(plain.labels, plain.weight, plain.bias, metadata=thresholds)
    assert open_policy(config(tmp_path), gate).min_confidence == 0.45
    asked = config(tmp_path, router={"max_risk": 0.1, "top_k": 1})
    policy = open_policy(asked, gate)
    assert (policy.min_confidence, policy.max_risk, policy.top_k) == (0.66, 0.1, 1)
    own = config(tmp_path, router={"min_confidence": 0.3})
    assert open_policy(own, gate).min_confidence == 0.3
    with pytest.raises(GateError, match="max_risk 0.2: this gate promises 0.05, 0.1"):
        open_policy(config(tmp_path, router={"max_risk": 0.2}), gate)
    with pytest.raises(GateError, match="no promises"):
        open_policy(asked, plain)


def test_telling_the_situation_takes_no_time_to_speak_of(tmp_path: Path) -> None:
    names = [f"e{number}" for number in range(1000)]
    experts = {name: {"model": "base", "adapter": "x"} for name in names}
    settings = config(tmp_path, experts={"general": {"model": "base"}, **experts})
    around = Surroundings(settings, Loads(groups(settings)))
    asked = task(settings, routing={"session": "s", "deadline_ms": 9000})
    started = time.process_time()
    for _ in range(100):
        around.situation(asked)
    assert (time.process_time() - started) / 100 < 0.002
