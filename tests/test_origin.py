"""Requests from pages of other sites, and who may write without a key."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from orchestrator.config import Config, LimitsConfig
from orchestrator.doorway import Doorway
from orchestrator.hosts import is_known
from orchestrator.identity import EVERYONE, READERS
from orchestrator.origin import is_foreign
from orchestrator.server_config import ServerConfig

DOCUMENTS = "/v1/collections/c/documents"


async def reached(_http: Request) -> Response:
    return JSONResponse({"reached": True})


@pytest.fixture
def door() -> TestClient:
    everything = [Route("/{path:path}", reached, methods=["GET", "POST", "DELETE"])]
    return TestClient(Doorway(Starlette(routes=everything), LimitsConfig()), "http://here:8000")


@pytest.mark.parametrize(
    ("origin", "host", "foreign"),
    [
        (None, "here:8000", False),
        ("http://here:8000", "here:8000", False),
        ("http://HERE:8000", "here:8000", False),
        ("https://here", "here", False),
        ("https://here", "here:443", False),
        ("http://[::1]:8000", "[::1]:8000", False),
        ("http://here:8001", "here:8000", True),
        ("http://here", "here:8000", True),
        ("https://evil.example", "here:8000", True),
        ("https://here.evil.example:8000", "here:8000", True),
        ("http://here:8000@evil.example", "here:8000", True),
        ("null", "here:8000", True),
        ("", "here:8000", True),
        ("http://here:x", "here:8000", True),
        ("http://[", "here:8000", True),
        ("http://here:8000", "", True),
    ],
)
def test_an_origin_is_foreign_unless_it_is_the_host(
    origin: str | None, host: str, foreign: bool
) -> None:
    headers = {"host": host} | ({} if origin is None else {"origin": origin})
    assert is_foreign(headers) == foreign


def test_a_page_of_another_site_sends_no_form_and_deletes_nothing(door: TestClient) -> None:
    evil = {"origin": "https://evil.example"}
    for response in (
        door.post(DOCUMENTS, files={"files": b"x"}, headers=evil),
        door.delete("/v1/collections/c", headers=evil),
        door.delete(f"{DOCUMENTS}/d", headers=evil | {"origin": "null"}),
    ):
        assert response.status_code == 403
        error: dict[str, Any] = response.json()["error"]
        assert (error["type"], error["code"]) == ("permission_error", "permission_denied")
        assert "may not change what is served here" in error["message"]


def test_what_has_no_origin_or_the_own_one_passes(door: TestClient) -> None:
    for headers in ({}, {"origin": "http://here:8000"}):
        assert door.post(DOCUMENTS, files={"files": b"x"}, headers=headers).is_success
        assert door.delete("/v1/collections/c", headers=headers).is_success
    evil = {"origin": "https://evil.example"}
    assert door.get("/v1/collections", headers=evil).is_success
    assert door.post("/v1/chat/completions", json={}, headers=evil).is_success


@pytest.mark.parametrize(
    ("server", "allowed"),
    [
        ({}, True),
        ({"host": "127.8.8.8"}, True),
        ({"host": "::1"}, True),
        ({"host": "localhost"}, True),
        ({"host": "0.0.0.0"}, False),
        ({"host": "::"}, False),
        ({"host": "10.0.0.1"}, False),
        ({"host": "collegium.example"}, False),
        ({"host": "0.0.0.0", "keyless_writes": True}, True),
        ({"keyless_writes": False}, False),
    ],
)
def test_without_a_key_collections_are_written_on_loopback_only(
    server: dict[str, Any], allowed: bool
) -> None:
    assert ServerConfig.model_validate(server).lets_everyone_write == allowed


@pytest.mark.parametrize(
    ("host", "allowed", "known"),
    [
        ("127.0.0.1:8000", (), True),
        ("[::1]:8000", (), True),
        ("10.1.2.3", (), True),
        ("LOCALHOST:8000", (), True),
        ("localhost.", (), True),
        ("app.localhost:8000", (), True),
        ("evil.example:8000", (), False),
        ("localhost.evil.example", (), False),
        ("127.0.0.1.evil.example", (), False),
        ("evil.example@127.0.0.1.nip.io", (), False),
        ("", (), False),
        ("[", (), False),
        ("collegium.example", ("Collegium.example",), True),
        ("collegium.example:443", ("collegium.example",), True),
        ("x.collegium.example", ("collegium.example",), False),
        ("evil.example", ("*",), True),
    ],
)
def test_a_name_is_known_if_it_is_nobodys_or_allowed(
    host: str, allowed: tuple[str, ...], known: bool
) -> None:
    assert is_known(host, allowed) == known


def test_a_page_that_calls_the_service_by_its_own_name_reaches_nothing() -> None:
    everything = [Route("/{path:path}", reached, methods=["GET", "POST", "DELETE"])]
    rebound = "http://evil.example:8000"
    door = TestClient(Doorway(Starlette(routes=everything), LimitsConfig(), ()), rebound)
    own = {"origin": rebound}
    for response in (
        door.get("/v1/collections", headers=own),
        door.post("/v1/chat/completions", json={}, headers=own),
        door.delete("/v1/collections/c", headers=own),
    ):
        assert response.status_code == 403
        error = response.json()["error"]
        assert error["param"] == "host"
        assert "'evil.example:8000'" in error["message"]
        assert "`server.allowed_hosts`" in error["message"]
    assert door.get("/", headers={"host": "localhost:8000"}).is_success


@pytest.mark.parametrize(
    ("server", "hosts"),
    [
        ({}, ()),
        ({"host": "0.0.0.0"}, ("*",)),
        ({"host": "0.0.0.0", "allowed_hosts": ["a.example"]}, ("a.example",)),
        ({"allowed_hosts": ["a.example"]}, ("a.example",)),
    ],
)
def test_only_on_loopback_are_names_refused_unasked(
    server: dict[str, Any], hosts: tuple[str, ...]
) -> None:
    assert ServerConfig.model_validate(server).hosts == hosts


def test_a_chart_answers_to_every_name_unless_it_says_otherwise() -> None:
    config = Config.load()
    assert config.server.hosts == ()
    assert config.deployed().server.hosts == ("*",)
    named = config.server.model_copy(update={"allowed_hosts": ("a.example",)})
    assert config.model_copy(update={"server": named}).deployed().server.hosts == ("a.example",)


def test_what_serve_deploys_listens_who_knows_where() -> None:
    config = Config.load()
    assert config.server.lets_everyone_write
    assert not config.deployed().server.lets_everyone_write
    said = config.server.model_copy(update={"keyless_writes": True})
    assert config.model_copy(update={"server": said}).deployed().server.lets_everyone_write


def test_readers_read_everything_and_write_nothing() -> None:
    assert READERS.may_read("c")
    assert not READERS.may_write("c")
    assert EVERYONE.may_write("c")
    assert (READERS.tenant, READERS.max_priority) == (EVERYONE.tenant, EVERYONE.max_priority)
