"""The HTTP face: every refusal in OpenAI's shape, and what callers read besides answers."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
from fastapi import Request
from in_process import Service, serving

from orchestrator.client import Client
from orchestrator.config import Config
from orchestrator.errors import PermissionDenied
from orchestrator.gateway import Gateway
from orchestrator.identity import Principal

pytest_plugins = ["service_fixtures"]
pytestmark = pytest.mark.models

HELLO = [{"role": "user", "content": "Hello there, how are you?"}]
CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def http(service: Service) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url, timeout=30) as client:
        yield client


def refused(response: httpx.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    body = response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    error: dict[str, Any] = body["error"]
    return error


@pytest.mark.parametrize(
    ("body", "status", "param", "said"),
    [
        ({"messages": HELLO, "model": "lgeal"}, 404, "model", "lgeal"),
        ({"messages": HELLO, "model": "code+nobody"}, 404, "model", "nobody"),
        ({"messages": HELLO, "routing": {"topk": 2}}, 400, "routing.topk", "top_k"),
        ({"messages": HELLO, "max_tokens": -1}, 400, "max_tokens", "-1"),
        ({"messages": HELLO, "max_tokens": 10_000}, 400, "max_tokens", "1024"),
        ({"messages": HELLO, "max_completion_tokens": 0}, 400, "max_completion_tokens", "0"),
        ({"messages": []}, 400, "messages", "at least 1"),
        ({"messages": [{"role": "user", "content": " "}]}, 400, "messages", "user"),
        ({"messages": [{"role": "system", "content": "x"}]}, 400, "messages", "user"),
        ({"messages": [{"role": "king", "content": "x"}]}, 400, "messages[0].role", "king"),
        ({"messages": HELLO * 300}, 400, "messages", "256"),
        ({}, 400, "messages", "required"),
        ([], 400, None, "JSON object"),
        ({"messages": HELLO, "temperature": 3}, 400, "temperature", "2"),
        ({"messages": HELLO, "temperature": "\ud800"}, 400, "temperature", "number"),
        ({"messages": HELLO, "\ud800": 1}, 400, "\\ud800", "not a known key"),
        (
            {"messages": HELLO, "routing": {"deadline_ms": 10**400}},
            *(400, "routing.deadline_ms", "86400000"),
        ),
        ({"messages": HELLO, "tools": [{}]}, 400, "tools", "not supported"),
        ({"messages": HELLO, "n": 2}, 400, "n", "not supported"),
        (
            {"messages": HELLO, "routing": {"weights": {"code": -1}}},
            400,
            "routing.weights.code",
            "",
        ),
        ({"messages": HELLO, "routing": {"weights": {"x": 1}}}, 404, "routing.weights.x", "x"),
        ({"messages": HELLO, "routing": {"experts": ["x"]}}, 404, "routing.experts", "x"),
        (
            {"messages": HELLO, "model": "code", "routing": {"weights": {"legal": 1}}},
            400,
            "routing.weights",
            "auto",
        ),
        (
            {"messages": HELLO, "routing": {"weights": {"code": 1, "mirror": 1}, "mode": "blend"}},
            400,
            "routing.mode",
            "mirror",
        ),
        ({"messages": HELLO, "routing": {"collections": ["no"]}}, 404, "routing.collections", "no"),
        (
            {"messages": HELLO, "routing": {"filter": {"language": "de"}}},
            400,
            "routing.filter",
            "no field 'language'",
        ),
        (
            {"messages": HELLO, "routing": {"collections": ["../etc"]}},
            400,
            "routing.collections",
            "../etc",
        ),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_wrong_body_is_refused_and_its_key_named(
    http: httpx.Client, body: object, status: int, param: str | None, said: str, stream: bool
) -> None:
    sent = {**body, "stream": stream} if isinstance(body, dict) else body
    error = refused(
        http.post(CHAT, content=json.dumps(sent), headers={"content-type": "application/json"}),
        status,
    )
    assert error["param"] == param
    assert said in error["message"]
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "content", [b'{"messages": [', b"", b"\xff\xfe", b"[" * 100_000, b'{"a": 1} x']
)
def test_a_body_that_is_no_json_is_refused(http: httpx.Client, content: bytes) -> None:
    response = http.post(CHAT, content=content, headers={"content-type": "application/json"})
    assert "body" in refused(response, 400)["message"]


def test_a_prompt_of_a_hundred_thousand_tokens_is_too_long(http: httpx.Client) -> None:
    error = refused(
        http.post(CHAT, json={"messages": [{"role": "user", "content": "word " * 100_000}]}), 400
    )
    assert (error["param"], error["code"]) == ("messages", "context_length_exceeded")


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_another_content_type_is_refused(http: httpx.Client, kind: str) -> None:
    response = http.post(CHAT, content=b"{}", headers={"content-type": kind} if kind else {})
    assert refused(response, 415)["param"] == "content-type"


@pytest.mark.parametrize("declared", [True, False])
def test_a_body_over_the_limit_is_refused(http: httpx.Client, declared: bool) -> None:
    whole = json.dumps({"messages": [{"role": "user", "content": "x" * 4_000_000}]}).encode()

    def pieces() -> Iterator[bytes]:
        for start in range(0, len(whole), 65_536):
            yield whole[start : start + 65_536]

    response = http.post(
        CHAT,
        content=whole if declared else pieces(),
        headers={"content-type": "application/json"},
    )
    error = refused(response, 413)
    assert error["param"] == "messages"
    assert "1048576" in error["message"]


def test_an_unknown_path_is_not_found(http: httpx.Client) -> None:
    for response in (http.get("/v2/chat"), http.post("/v1/nothing", json={})):
        error = refused(response, 404)
        assert response.url.path in error["message"]


def test_a_wrong_method_is_refused_and_the_right_one_named(http: httpx.Client) -> None:
    response = http.get(CHAT)
    assert "GET" in refused(response, 405)["message"]
    assert response.headers["allow"] == "POST"


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"input": []}, 400, "input"),
        ({"input": ["x"] * 300}, 400, "input"),
        ({"input": "x", "model": "gpt"}, 404, "model"),
        ({"input": "x", "dimensions": 7}, 400, "dimensions"),
        ({"input": "x", "encoding_format": "hex"}, 400, "encoding_format"),
    ],
)
def test_a_wrong_embedding_request_is_refused(
    http: httpx.Client, body: object, status: int, param: str
) -> None:
    assert refused(http.post("/v1/embeddings", json=body), status)["param"] == param


def test_lone_surrogates_in_a_prompt_are_replaced(http: httpx.Client) -> None:
    content = json.dumps({"messages": [{"role": "user", "content": "a \ud800 b"}]})
    response = http.post(CHAT, content=content, headers={"content-type": "application/json"})
    assert response.json()["choices"][0]["message"]["content"] == "a ? b"


def test_the_weights_of_the_caller_are_obeyed_exactly(http: httpx.Client) -> None:
    weights = {"multilingual": 1, "code": 3}
    answer = http.post(CHAT, json={"messages": HELLO, "routing": {"weights": weights}}).json()
    found = [(e["name"], e["weight"]) for e in answer["x_routing"]["experts"]]
    assert found == [("code", 0.75), ("multilingual", 0.25)]
    assert answer["x_routing"]["mode"] == "mixture"


def test_a_model_of_two_names_forces_both_with_equal_weights(
    http: httpx.Client, service: Service
) -> None:
    answer = http.post(CHAT, json={"messages": HELLO, "model": "code+legal"}).json()
    assert answer["model"] == "code+legal"
    found = {e["name"]: e["weight"] for e in answer["x_routing"]["experts"]}
    assert found == {"code": 0.5, "legal": 0.5}
    asked = service.echo("code").requests[-1]
    assert dict(asked.experts) == found


def test_a_route_is_the_decision_without_an_answer(http: httpx.Client, service: Service) -> None:
    asked = {name: len(service.echo(name).requests) for name in ("general", "code", "legal")}
    body = {"messages": [{"role": "user", "content": "Sort a list in Python"}]}
    routed = http.post("/v1/route", json=body).json()
    assert asked == {name: len(service.echo(name).requests) for name in asked}
    chatted = http.post(CHAT, json=body).json()["x_routing"]
    for key in ("experts", "candidates", "k", "reason", "router_version", "mode"):
        assert routed[key] == chatted[key], key
    assert routed["experts"][0]["name"] == "code"


@pytest.mark.parametrize(
    ("sent", "given"), [({}, 0), ({"priority": 10}, 10), ({"priority": -3}, -3)]
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_priority_reaches_every_expert_that_is_asked(
    http: httpx.Client, service: Service, sent: dict[str, int], given: int, stream: bool
) -> None:
    routing = {"weights": {"code": 1, "legal": 1}, "mode": "fuse", **sent}
    body = {"messages": HELLO, "routing": routing, "stream": stream}
    assert http.post(CHAT, json=body).status_code == 200
    asked = [service.echo(name).requests[-1] for name in ("code", "legal", "general")]
    assert [request.priority for request in asked] == [given] * 3


class Keyed(Gateway):
    """A gateway whose callers have keys: `principals` by the key that they send."""

    principals = {"plain": Principal("a"), "fast": Principal("b", max_priority=4)}

    def _principal(self, http: Request) -> Principal:
        return self.principals[http.headers["authorization"].removeprefix("Bearer ")]


@pytest.mark.parametrize(("key", "most"), [("plain", 0), ("fast", 4)])
def test_nobody_pushes_others_aside_beyond_the_priority_of_their_key(
    service: Service, key: str, most: int
) -> None:
    pipeline = service.pipeline()
    with (
        serving(Keyed(service.config, pipeline, service.telemetry).app()) as url,
        Client(url, key, max_retries=0) as client,
    ):
        client.chat("x", model="code", routing={"priority": most})
        assert service.echo("code").requests[-1].priority == most
        assert service.echo("code").requests[-1].principal == Keyed.principals[key].tenant
        with pytest.raises(PermissionDenied) as refusal:
            client.chat("x", model="code", routing={"priority": most + 1})
    assert (refusal.value.status, refusal.value.param) == (403, "routing.priority")
    assert refusal.value.message == (
        f"`routing.priority` is {most + 1}, this key may ask for at most {most}: ask for no more, "
        "or have the operator of this service raise the key's `max_priority`."
    )


def test_a_mix_for_which_there_is_never_room_is_refused_before_it_runs(service: Service) -> None:
    body = service.config.model_dump(mode="json")
    body["models"]["base"]["resident_adapters"] = 2
    narrow = replace(service, config=Config.check(body))
    three = {"code": 1, "legal": 1, "multilingual": 1}
    with serving(narrow.app()) as url, httpx.Client(base_url=url, timeout=30) as http:
        for sent in ({"routing": {"weights": three}}, {"model": "+".join(three)}):
            asked = len(service.echo("code").requests)
            error = refused(http.post(CHAT, json={"messages": HELLO, **sent}), 400)
            assert error["param"] == ("model" if "model" in sent else "routing.weights")
            assert "room for 2" in error["message"]
            assert len(service.echo("code").requests) == asked
        error = refused(
            http.post("/v1/route", json={"messages": HELLO, "routing": {"top_k": 3}}), 400
        )
        assert error["param"] == "routing.top_k"
        allowed = {"messages": HELLO, "routing": {"top_k": 2}}
        assert http.post(CHAT, json=allowed).status_code == 200
        ranked = {"messages": HELLO, "routing": {"weights": three, "mode": "rank"}}
        assert http.post(CHAT, json=ranked).json()["x_routing"]["k"] == 3


def test_a_deadline_is_kept(http: httpx.Client) -> None:
    body = {"messages": HELLO, "model": "endless", "routing": {"deadline_ms": 700}}
    started = time.monotonic()
    answered = http.post(CHAT, json=body)
    error = refused(answered, 504)
    assert time.monotonic() - started < 5
    assert answered.headers["x-should-retry"] == "false"
    assert (error["param"], error["code"]) == ("routing.deadline_ms", "deadline_exceeded")


def test_a_deadline_that_passes_in_a_stream_ends_it_with_an_error(http: httpx.Client) -> None:
    body = {
        "messages": HELLO,
        "model": "endless",
        "stream": True,
        "routing": {"deadline_ms": 1500},
    }
    response = http.post(CHAT, json=body)
    events = [line for line in response.text.split("\n\n") if line]
    assert response.status_code == 200
    assert json.loads(events[-2].removeprefix("data: "))["error"]["code"] == "deadline_exceeded"
    assert events[-1] == "data: [DONE]"


def test_health_readiness_and_description(http: httpx.Client) -> None:
    assert http.get("/healthz").json() == {"status": "ok"}
    assert http.get("/readyz").json() == {"status": "ready", "faults": []}
    paths = http.get("/openapi.json").json()["paths"]
    served = {
        CHAT,
        "/v1/route",
        "/v1/embeddings",
        "/v1/feedback",
        "/v1/cache",
        "/v1/models",
        "/v1/models/{name}",
    }
    one = "/v1/collections/{name}"
    collections = {"/v1/collections", one, f"{one}/search", f"{one}/documents"}
    served |= {*collections, f"{one}/documents/{{document_id}}"}
    assert served | {"/healthz", "/readyz", "/metrics"} == set(paths)
    chat = paths[CHAT]["post"]["responses"]
    assert {"200", "400", "404", "413", "415", "429", "503"} <= set(chat)
    schemas = http.get("/openapi.json").json()["components"]["schemas"]
    priority, _null = schemas["RoutingOptions"]["properties"]["priority"]["anyOf"]
    assert priority == {"type": "integer", "minimum": -10, "maximum": 10}


def test_a_request_cut_off_in_its_body_leaves_the_service_well(service: Service) -> None:
    host, port = service.url.removeprefix("http://").split(":")
    head = (
        f"POST {CHAT} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
        "content-length: 100\r\n\r\n{"
    )
    with socket.create_connection((host, int(port))) as raw:
        raw.sendall(head.encode())
    assert httpx.get(f"{service.url}/healthz").status_code == 200
