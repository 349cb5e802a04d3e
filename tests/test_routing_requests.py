"""Sessions, budgets, preferences and locales, asked for over HTTP and obeyed by the real gate."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
from click.testing import CliRunner
from fastapi import Request
from in_process import Service, gathered, serving

from experts.echo import EchoExpert
from orchestrator.cli.root import cli
from orchestrator.client import Client
from orchestrator.config import Config
from orchestrator.errors import ExpertUnavailable, InvalidRequest
from orchestrator.gateway import Gateway
from orchestrator.identity import Principal

pytest_plugins = ["service_fixtures"]
pytestmark = pytest.mark.models

CHAT = "/v1/chat/completions"
CODE = "Write a Python function that reverses a linked list."
FOLLOW_UP = "now commit it"
FOLLOW_UPS = [FOLLOW_UP, "again, please", "make it shorter", "shorter please", "thanks, go on"]
CHANGES = {
    "Is a contract valid if one of the parties signed it under duress?": "legal",
    "¿Cuál es la capital de Perú?": "multilingual",
    "Quelle heure est-il ?": "multilingual",
    "What is the capital of France?": "general",
}


class Keyed(Gateway):
    """A gateway whose callers say which tenant they are."""

    def _principal(self, http: Request) -> Principal:
        return Principal(http.headers.get("tenant", "default"))


@pytest.fixture
def http(service: Service) -> Iterator[httpx.Client]:
    """A gateway with no memory of other tests, over the parts that they share."""
    app = Keyed(service.config, service.pipeline(), service.telemetry).app()
    with serving(app) as url, httpx.Client(base_url=url, timeout=30, trust_env=False) as client:
        yield client


def body(text: str, **routing: object) -> dict[str, Any]:
    asked = {"messages": [{"role": "user", "content": text}], "max_tokens": 8}
    return {**asked, "routing": {"grounding": "off", **routing}}


def routing_of(
    http: httpx.Client, text: str, headers: dict[str, str] | None = None, **routing: object
) -> dict[str, Any]:
    response = http.post(CHAT, json=body(text, **routing), headers=headers)
    assert response.status_code == 200, response.text
    report: dict[str, Any] = response.json()["x_routing"]
    for key, share in (("candidates", "probability"), ("experts", "weight")):
        assert sum(one[share] for one in report[key]) == pytest.approx(1.0, abs=1e-9)
    return report


def names(report: dict[str, Any]) -> list[str]:
    return [expert["name"] for expert in report["experts"]]


@pytest.mark.parametrize("said", FOLLOW_UPS)
def test_a_short_follow_up_stays_with_the_expert_of_the_answer_before(
    http: httpx.Client, said: str
) -> None:
    bounced = routing_of(http, said)
    assert "the session" not in bounced["reason"]
    assert names(routing_of(http, CODE, session="s")) == ["code"]
    followed = routing_of(http, said, session="s")
    assert names(followed)[0] == "code"
    before = {c["name"]: c["probability"] for c in bounced["candidates"]}["code"]
    after = {c["name"]: c["probability"] for c in followed["candidates"]}["code"]
    assert f"the session raised code from {before:.2f} to {after:.2f}" in followed["reason"]


def test_without_a_session_the_follow_up_goes_elsewhere(http: httpx.Client) -> None:
    routing_of(http, CODE, session="s")
    assert names(routing_of(http, FOLLOW_UP))[0] != "code"


@pytest.mark.parametrize("said", list(CHANGES))
def test_a_plain_change_of_topic_changes_the_expert(http: httpx.Client, said: str) -> None:
    routing_of(http, CODE, session="s")
    assert names(routing_of(http, said, session="s"))[0] == CHANGES[said]
    # And the new topic is what the session is about from now on.
    assert names(routing_of(http, FOLLOW_UP, session="s"))[0] == CHANGES[said]


def test_the_header_names_the_session_as_well(http: httpx.Client) -> None:
    routing_of(http, CODE, {"x-session-id": "s"})
    assert names(routing_of(http, FOLLOW_UP, session="s"))[0] == "code"
    error = http.post(CHAT, json=body("x", session="t"), headers={"x-session-id": "s"})
    assert (error.status_code, error.json()["error"]["param"]) == (400, "routing.session")


def test_a_session_is_its_tenant_s_alone(http: httpx.Client) -> None:
    routing_of(http, CODE, {"tenant": "one"}, session="s")
    other = routing_of(http, FOLLOW_UP, {"tenant": "two"}, session="s")
    assert "the session" not in other["reason"]
    own = routing_of(http, FOLLOW_UP, {"tenant": "one"}, session="s")
    assert "the session" in own["reason"]


def test_a_decision_without_an_answer_reads_a_session_and_leaves_it(http: httpx.Client) -> None:
    http.post("/v1/route", json=body(CODE, session="s"))
    assert "the session" not in http.post("/v1/route", json=body(FOLLOW_UP, session="s")).text
    routing_of(http, CODE, session="s")
    assert "the session raised code" in http.post("/v1/route", json=body("go", session="s")).text


def priced(service: Service) -> Service:
    settings = service.config.model_dump(mode="json")
    for name, expert in settings["experts"].items():
        expert["price"] = {"output": 1.0 if name == "general" else 1000.0}
    return replace(service, config=Config.check(settings))


def test_a_budget_keeps_the_dear_expert_out_and_says_so(service: Service) -> None:
    with serving(priced(service).app()) as url, Client(url, max_retries=0) as client:
        rich = client.chat(CODE, max_tokens=8, routing={"max_cost": 0.01})
        assert [expert.name for expert in rich.routing.experts] == ["code"]
        poor = client.chat(CODE, max_tokens=8, routing={"max_cost": 0.001})
        assert [expert.name for expert in poor.routing.experts] == ["general"]
        assert "is estimated at 0.008 USD, over max_cost 0.001 USD" in poor.routing.reason
        assert poor.routing.fallback


@pytest.mark.parametrize(
    ("model", "least"), [("auto", "0.000008 USD"), ("code", "0.008 USD"), ("code+legal", "0.016")]
)
def test_what_nobody_can_do_for_the_money_is_refused_with_its_price(
    service: Service, model: str, least: str
) -> None:
    with serving(priced(service).app()) as url, Client(url, max_retries=0) as client:
        for ask in (client.chat, client.route):
            with pytest.raises(InvalidRequest) as refusal:
                ask(CODE, model=model, max_tokens=8, routing={"max_cost": 0.000001})
            assert (refusal.value.status, refusal.value.param) == (400, "routing.max_cost")
            assert least in refusal.value.message
            assert "max_tokens" in refusal.value.message


async def test_the_generalist_stands_in_for_nobody_where_it_is_too_dear(service: Service) -> None:
    settings = service.config.model_dump(mode="json")
    settings["experts"]["general"]["price"] = {"output": 1000.0}
    dear = replace(service, config=Config.check(settings))
    general = EchoExpert("general")
    task = dear.task("a b", model="broken", max_tokens=8, routing={"max_cost": 0.001})
    with pytest.raises(ExpertUnavailable, match="broken"):
        await gathered(dear.pipeline(general=general), task)
    assert general.requests == []


def test_a_preference_moves_the_choice_by_its_log_odds(http: httpx.Client) -> None:
    plain = routing_of(http, FOLLOW_UP)
    leaned = routing_of(http, FOLLOW_UP, preferences={"legal": 1.0})
    before = {c["name"]: c["probability"] for c in plain["candidates"]}
    after = {c["name"]: c["probability"] for c in leaned["candidates"]}
    odds = (after["legal"] / after["code"]) / (before["legal"] / before["code"])
    assert odds == pytest.approx(20.0855, rel=1e-4)
    assert "the caller's preferences raised legal" in leaned["reason"]


def test_a_locale_speaks_for_those_who_declare_it(service: Service) -> None:
    settings = service.config.model_dump(mode="json")
    settings["experts"]["multilingual"]["languages"] = ["es", "pt-BR"]
    told = Service.open(Config.check(settings))
    with serving(told.app()) as url, Client(url, max_retries=0) as client:
        plain = client.route("Taxi?")
        spoken = client.route("Taxi?", routing={"locale": "es-PE"})
        other = client.route("Taxi?", routing={"locale": "en"})
    for report, factor in ((spoken, 2.71828), (other, 1 / 2.71828)):
        found = {c.name: c.probability for c in report.candidates}
        known = {c.name: c.probability for c in plain.candidates}
        odds = found["multilingual"] / found["general"]
        assert odds / (known["multilingual"] / known["general"]) == pytest.approx(factor, rel=1e-4)


@pytest.mark.parametrize(
    ("routing", "status", "param"),
    [
        ({"locale": "pt_BR"}, 400, "routing.locale"),
        ({"preferences": {"code": 2}}, 400, "routing.preferences.code"),
        ({"preferences": {"cooking": 1}}, 404, "routing.preferences.cooking"),
        ({"max_cost": -1}, 400, "routing.max_cost"),
        ({"session": ""}, 400, "routing.session"),
    ],
)
def test_a_wrong_value_is_refused_by_its_key(
    http: httpx.Client, routing: dict[str, object], status: int, param: str
) -> None:
    for path in (CHAT, "/v1/route"):
        response = http.post(path, json=body("x", **routing))
        assert (response.status_code, response.json()["error"]["param"]) == (status, param)


def test_the_command_line_asks_with_all_of_them(service: Service) -> None:
    command = ["route", CODE, "--url", service.url, "--json", "--session", "cli", "--locale", "en"]
    command += ["--max-cost", "0.5", "--deadline-ms", "20000"]
    command += ["--prefer", "legal=1", "--prefer", "code=-1"]
    done = CliRunner().invoke(cli, command)
    assert done.exit_code == 0, done.output
    assert "the caller's preferences" in done.output
