"""Feedback over HTTP: what is kept, for whom, and that it is there after a kill."""

from __future__ import annotations

import json
import os
import queue
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from click.testing import CliRunner
from feedback_service import SECRET, Place, configuration
from in_process import serving
from logged_rows import row
from misbehaving import Connect
from otlp_receiver import otlp_receiver
from test_router_routing import word_vectors

from experts.echo import EchoExpert
from experts.generation import Chunk, ExpertError, Generation
from orchestrator.cli.root import cli
from orchestrator.config import Config, ConfigError
from orchestrator.decision_log import Bounds, DecisionLog, log_file, read_log
from orchestrator.errors import InvalidRequest, NotFound
from orchestrator.metrics import Metrics
from orchestrator.scribe import Noted, Rated, Scribe
from orchestrator.wire import Feedback
from router.features import FEATURE_VERSION, featurize
from router.logged_decision import LoggedDecision, Opinion, hashed
from router.overrides import Overrides

pytest_plugins = ["sdk_fixtures"]

HELLO = [{"role": "user", "content": SECRET}]
CHAT, FEEDBACK = "/v1/chat/completions", "/v1/feedback"


@dataclass(frozen=True)
class Caller:
    """A service, and somebody who calls it."""

    place: Place
    http: httpx.Client

    def decide(self, key: str = "", path: str = "/v1/route", **body: Any) -> dict[str, Any]:  # noqa: ANN401
        sent = {"messages": HELLO, **body}
        found = self.http.post(path, json=sent, headers=keyed(key))
        assert found.status_code == 200, found.text
        routing: dict[str, Any] = found.json()
        return routing if path == "/v1/route" else routing["x_routing"]

    def say(self, name: str, key: str = "", **opinion: Any) -> httpx.Response:  # noqa: ANN401
        body = {"decision_id": name, **opinion}
        return self.http.post(FEEDBACK, json=body, headers=keyed(key))

    def counted(self, name: str, *labels: str) -> float:
        lines = self.http.get("/metrics").text.splitlines()
        return sum(
            float(line.split()[-1])
            for line in lines
            if line.startswith(f"collegium_{name}") and all(f'"{x}"' in line for x in labels)
        )


def keyed(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"} if key else {}


@contextmanager
def calling(folder: Path, config: Config | None = None, **ports: Any) -> Iterator[Caller]:  # noqa: ANN401
    metrics = Metrics()
    place = Place.open(config or configuration(folder), metrics, **ports)
    with (
        serving(place.app(metrics)) as url,
        httpx.Client(base_url=url, timeout=30, trust_env=False) as http,
    ):
        yield Caller(place, http)


@pytest.fixture
def caller(tmp_path: Path) -> Iterator[Caller]:
    with calling(tmp_path) as opened:
        yield opened


def error(response: httpx.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert set(response.json()) == {"error"}
    found: dict[str, Any] = response.json()["error"]
    assert set(found) == {"message", "type", "param", "code"}
    return found


def test_a_thumb_is_a_score_and_what_is_kept_comes_back(caller: Caller) -> None:
    name = caller.decide(path=CHAT)["decision_id"]
    kept = caller.say(name, thumb="up", comment="schön")
    assert kept.status_code == 200
    assert kept.json() == {
        "object": "feedback",
        "decision_id": name,
        "score": 1.0,
        "expert": None,
        "comment": "schön",
        "replaced": False,
    }
    (found,) = caller.place.log()
    assert found.opinion is not None
    assert (found.id, found.opinion.score, found.opinion.comment) == (name, 1.0, "schön")


def test_saying_it_again_replaces_what_was_said(caller: Caller) -> None:
    name = caller.decide()["decision_id"]
    assert caller.say(name, score=0.25, expert="legal", comment="x").json()["replaced"] is False
    again = caller.say(name, thumb="down").json()
    assert (again["score"], again["expert"], again["replaced"]) == (-1.0, None, True)
    assert caller.say(name, thumb="down").json() == again
    (found,) = caller.place.log()
    assert found.opinion is not None
    assert (found.opinion.score, found.opinion.expert, found.opinion.comment) == (-1.0, None, None)


def test_the_id_of_the_answer_is_as_good_as_that_of_the_decision(caller: Caller) -> None:
    answer = caller.http.post(CHAT, json={"messages": HELLO}).json()
    kept = caller.say(answer["id"], score=0.5).json()
    assert kept["decision_id"] == answer["x_routing"]["decision_id"]


def test_a_stream_can_be_rated_once_its_decision_is_seen(caller: Caller) -> None:
    text = caller.http.post(CHAT, json={"messages": HELLO, "stream": True}).text
    events = [json.loads(e[6:]) for e in text.split("\n\n") if e and e != "data: [DONE]"]
    (routing,) = [event["x_routing"] for event in events if "x_routing" in event]
    assert caller.say(routing["decision_id"], thumb="up").status_code == 200


def test_a_decision_is_kept_as_it_was_shown(caller: Caller) -> None:
    shown = caller.decide(path=CHAT, routing={"session": "s", "locale": "en"})
    (found,) = caller.place.log()
    assert (found.id, found.kind, found.tenant) == (shown["decision_id"], "chat", "default")
    assert found.router_version == shown["router_version"]
    assert found.weights == {e["name"]: e["weight"] for e in shown["experts"]}
    told = {c["name"]: c["probability"] for c in shown["candidates"]}
    assert found.probabilities == pytest.approx({n: p for n, p in told.items() if p >= 1e-4})
    assert found.overrides == Overrides(locale="en")
    assert (found.draw.propensity, found.draw.rate) == (1.0, 0.0)
    assert found.latency == "under_1s"
    assert abs(found.at - time.time()) < 60
    assert found.key == hashed("default\ns")


def test_without_leave_no_text_is_on_disk(caller: Caller) -> None:
    caller.say(caller.decide(path=CHAT)["decision_id"], thumb="up")
    (found,) = caller.place.log()
    assert found.text is None
    folder = log_file(caller.place.config.feedback).parent
    everything = b"".join(path.read_bytes() for path in folder.iterdir())
    assert b"zebra" not in everything


def test_what_the_gate_read_is_kept_and_decides_the_same(caller: Caller) -> None:
    caller.decide()
    (found,) = caller.place.log()
    assert found.read is not None
    wanted = featurize([("user", SECRET)], word_vectors)
    assert (found.read.version, found.read.encoder) == (FEATURE_VERSION, "words")
    assert (found.read.dimensions, found.read.said) == (384, len(SECRET))
    np.testing.assert_allclose(found.read.features(), wanted.joined(), atol=1e-3)


def test_text_is_kept_where_the_configuration_says_so(tmp_path: Path) -> None:
    config = configuration(tmp_path, feedback={"keep_text": True})
    with calling(tmp_path, config) as caller:
        caller.decide(messages=[{"role": "user", "content": "hola"}, *HELLO])
        (found,) = caller.place.log()
    assert found.text == SECRET


def test_a_caller_may_have_nothing_of_the_request_kept(tmp_path: Path) -> None:
    config = configuration(tmp_path, feedback={"keep_text": True})
    with calling(tmp_path, config) as caller:
        name = caller.decide(store=False)["decision_id"]
        assert caller.say(name, thumb="up").status_code == 200
        caller.decide(store=True)
        bare, whole = caller.place.log()
    assert (bare.text, bare.read) == (None, None)
    assert bare.score == 1.0
    assert whole.text == SECRET and whole.read is not None


def test_tenants_do_not_meet(caller: Caller) -> None:
    mine = caller.decide("a")["decision_id"]
    theirs = error(caller.say(mine, "b", thumb="down"), 404)
    nobodys = error(caller.say(mine.replace(mine[-1], "?"), "b", thumb="down"), 404)
    # Nothing tells that it is there.
    assert theirs["message"].replace(mine, "") == nobodys["message"].replace(
        mine.replace(mine[-1], "?"), ""
    )
    assert caller.say(mine, "a", thumb="up").status_code == 200
    (found,) = caller.place.log()
    assert (found.tenant, found.score) == ("a", 1.0)


@pytest.mark.parametrize(
    "name", ["dec-nobody", "x", "'; DROP TABLE decisions; --", "\0", "𝔘" * 128, "%", " ", "../x"]
)
def test_an_unknown_decision_is_not_found_and_named(caller: Caller, name: str) -> None:
    caller.decide()
    found = error(caller.say(name, thumb="up"), 404)
    assert (found["param"], found["code"]) == ("decision_id", "decision_not_found")
    assert len(caller.place.log()) == 1


def test_a_lone_surrogate_names_nothing(caller: Caller) -> None:
    for body in ({"decision_id": "a\ud800"}, {"decision_id": "a", "comment": "\ud800"}):
        content = json.dumps({**body, "thumb": "up"})
        head = {"content-type": "application/json"}
        response = caller.http.post(FEEDBACK, content=content, headers=head)
        assert response.status_code in (400, 404)
        assert error(response, response.status_code)["param"] in ("decision_id", "comment")


@pytest.mark.parametrize(
    ("body", "status", "param", "said"),
    [
        ({}, 400, "decision_id", "required"),
        ([], 400, None, "JSON object"),
        ({"decision_id": "x"}, 400, "score", "`thumb` or `expert`"),
        ({"decision_id": "x", "score": 1, "thumb": "up"}, 400, "score", "give one"),
        ({"decision_id": "x", "score": 1.01}, 400, "score", "1.01"),
        ({"decision_id": "x", "score": "1"}, 400, "score", "number"),
        ({"decision_id": "x", "score": True}, 400, "score", "number"),
        ({"decision_id": "x", "thumb": "sideways"}, 400, "thumb", "'up' or 'down'"),
        ({"decision_id": "", "thumb": "up"}, 400, "decision_id", "at least 1"),
        ({"decision_id": "x" * 129, "thumb": "up"}, 400, "decision_id", "at most 128"),
        ({"decision_id": 7, "thumb": "up"}, 400, "decision_id", "string"),
        ({"decision_id": "x", "thumb": "up", "comment": "c" * 2001}, 400, "comment", "2000"),
        ({"decision_id": "x", "thumb": "up", "exprt": "code"}, 400, "exprt", "expert"),
        ({"decision_id": "x", "expert": "medicine"}, 404, "expert", "multilingual"),
        ({"decision_id": "x", "expert": "auto"}, 404, "expert", "auto"),
    ],
)
def test_bad_feedback_is_refused_and_its_key_named(
    caller: Caller, body: object, status: int, param: str | None, said: str
) -> None:
    found = error(caller.http.post(FEEDBACK, json=body), status)
    assert found["param"] == param
    assert said in found["message"]


def test_nobody_names_an_expert_that_is_closed_to_them(caller: Caller) -> None:
    name = caller.decide("coders")["decision_id"]
    found = error(caller.say(name, "coders", expert="legal"), 403)
    assert found["param"] == "expert"
    assert caller.say(name, "coders", expert="general").status_code == 200


def test_a_service_that_keeps_nothing_says_so(tmp_path: Path) -> None:
    with calling(tmp_path, configuration(tmp_path, feedback={"enabled": False})) as caller:
        name = caller.decide(path=CHAT)["decision_id"]
        found = error(caller.say(name, thumb="up"), 404)
        assert found["code"] == "feedback_disabled"
        assert "feedback.enabled" in found["message"]
    assert not (tmp_path / "feedback").exists()


def test_exploration_without_a_log_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"`router\.explore` is 0\.1, but `feedback\.enabled`"):
        configuration(tmp_path, feedback={"enabled": False}, router={"explore": 0.1})


def test_exploration_stands_in_reason_report_and_log(tmp_path: Path) -> None:
    config = configuration(tmp_path, router={"explore": 1.0})
    with calling(tmp_path, config) as caller:
        shown = [caller.decide(path=CHAT) for _ in range(4)]
        forced = caller.decide(path=CHAT, model="code")
        *logged, last = caller.place.log()
    for report, found in zip(shown, logged, strict=True):
        assert report["explored"] is True and "exploration" in report["reason"]
        (expert,) = report["experts"]
        assert report["propensity"] == pytest.approx(expert["probability"])
        assert (found.draw.rate, found.draw.explored) == (1.0, True)
        assert found.draw.propensity == pytest.approx(report["propensity"])
        assert found.chosen == (expert["name"],)
    assert (forced["explored"], forced["propensity"]) == (False, 1.0)
    assert last.overrides.weights == {"code": 1.0}
    assert last.draw.rate == 0.0


class Broken(EchoExpert):
    async def generate(self, request: Generation) -> AsyncGenerator[Chunk, None]:
        raise ExpertError("its replica died")
        yield Chunk("")


class Torn(EchoExpert):
    async def generate(self, request: Generation) -> AsyncGenerator[Chunk, None]:
        yield Chunk("once")
        raise ExpertError("its replica died")


def test_it_is_kept_who_stood_in_and_what_never_ended(tmp_path: Path) -> None:
    with calling(tmp_path, code=Broken("code"), legal=Torn("legal")) as caller:
        caller.decide(path=CHAT, model="code")
        caller.http.post(CHAT, json={"messages": HELLO, "model": "legal"})
        caller.decide(model="general")
        first, second, third = caller.place.log()
    assert (first.stood_in, first.latency) == (True, "under_1s")
    assert (second.stood_in, second.latency) == (False, None)
    assert (third.kind, third.latency) == ("route", None)


def test_a_probe_of_readiness_is_no_traffic(caller: Caller) -> None:
    assert caller.http.get("/readyz").json() == {"status": "ready", "faults": []}
    assert caller.place.log() == []


def test_counters_tell_what_was_kept(caller: Caller) -> None:
    for thumb in ("up", "down", "down"):
        caller.say(caller.decide()["decision_id"], thumb=thumb, expert="legal")
    caller.say(caller.decide()["decision_id"], expert="code")
    caller.say("nobody", thumb="up")
    assert caller.counted("logged_decisions_total") == 4
    assert caller.counted("feedback_total", "positive", "yes") == 1
    assert caller.counted("feedback_total", "negative", "yes") == 2
    assert caller.counted("feedback_total", "none") == 1
    assert caller.counted("feedback_total") == 4
    assert caller.counted("requests_total", FEEDBACK, "200") == 4
    assert caller.counted("requests_total", FEEDBACK, "404") == 1


def test_a_log_that_cannot_be_written_holds_up_no_request(tmp_path: Path) -> None:
    (tmp_path / "feedback").write_text("a file where the folder should be")
    with calling(tmp_path) as caller:
        name = caller.decide(path=CHAT)["decision_id"]
        found = error(caller.say(name, thumb="up"), 500)
        assert str(tmp_path) not in found["message"]
        assert caller.counted("unlogged_decisions_total", "fault") == 1
        (tmp_path / "feedback").unlink()
        name = caller.decide(path=CHAT)["decision_id"]
        assert caller.say(name, thumb="up").status_code == 200


class Locked:
    """A log that somebody else holds, until it is let go."""

    def __init__(self, path: Path) -> None:
        with DecisionLog(path, Bounds(10, 1e12)).transaction():
            pass
        self._database = sqlite3.connect(path, isolation_level=None)
        self._database.execute("BEGIN IMMEDIATE")

    def let_go(self) -> None:
        self._database.execute("COMMIT")
        self._database.close()


def noted(number: int) -> Noted:
    return Noted(lambda: row(number))


def test_what_finds_too_many_waiting_is_dropped_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "decisions.sqlite"
    metrics, begun = Metrics(), threading.Event()
    locked = Locked(path)
    scribe = Scribe(DecisionLog(path, Bounds(1000, 1e12)), metrics, waiting=5, linger=0.0)

    def first() -> LoggedDecision:
        begun.set()
        return row(0)

    scribe.put(Noted(first))
    # The lock holds the scribe before it makes the first row.
    deadline = time.monotonic() + 10
    while scribe._queue.qsize() and time.monotonic() < deadline:
        time.sleep(0.001)
    assert not begun.is_set()
    started = time.perf_counter()
    for number in range(1, 21):
        scribe.put(noted(number))
    assert time.perf_counter() - started < 0.1
    answer: Future[bool | None] = Future()
    scribe.put(Rated("dec-0", "default", Opinion(1.0, None, None, 1.0), answer))
    locked.let_go()
    scribe.close()
    assert answer.result(timeout=10) is False
    assert [one.id for one in read_log(path)] == [f"dec-{n}" for n in range(6)]
    text = metrics.text().decode()
    assert 'collegium_unlogged_decisions_total{why="queue"} 15.0' in text
    assert "collegium_logged_decisions_total 6.0" in text


def test_one_broken_decision_takes_no_other_along(tmp_path: Path) -> None:
    path, metrics = tmp_path / "decisions.sqlite", Metrics()
    scribe = Scribe(DecisionLog(path, Bounds(1000, 1e12)), metrics, linger=0.5)
    scribe.put(noted(1))
    scribe.put(Noted(lambda: row(2, weights={"code": 1.0}, key=object())))
    scribe.put(noted(3))
    scribe.close()
    assert [one.id for one in read_log(path)] == ["dec-1", "dec-3"]
    assert 'collegium_unlogged_decisions_total{why="fault"} 1.0' in metrics.text().decode()


def test_what_one_gateway_is_about_to_write_another_finds(tmp_path: Path) -> None:
    with calling(tmp_path) as one, calling(tmp_path) as other:
        for _ in range(5):
            name = one.decide()["decision_id"]
            assert other.say(name, thumb="up").status_code == 200


def service_of_its_own(folder: Path) -> tuple[subprocess.Popen[str], str]:
    script = Path(__file__).with_name("feedback_service.py")
    root = Path(__file__).parent.parent
    process = subprocess.Popen(
        [sys.executable, str(script), str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


@pytest.mark.parametrize("kill", range(3))
def test_what_was_acknowledged_survives_a_kill(tmp_path: Path, kill: int) -> None:
    process, url = service_of_its_own(tmp_path)
    acknowledged: queue.SimpleQueue[tuple[str, float]] = queue.SimpleQueue()

    def rate(part: int) -> None:
        with httpx.Client(base_url=url, timeout=30, trust_env=False) as http:
            turn = 0
            while True:
                routed = http.post("/v1/route", json={"messages": HELLO}).json()
                score = (turn % 21 - 10) / 10
                body = {"decision_id": routed["decision_id"], "score": score}
                assert http.post(FEEDBACK, json=body).status_code == 200
                acknowledged.put((routed["decision_id"], score))
                turn += 1

    def until_it_ends(part: int) -> None:
        try:
            rate(part)
        except httpx.TransportError:
            return

    threads = [threading.Thread(target=until_it_ends, args=(part,)) for part in range(4)]
    try:
        for thread in threads:
            thread.start()
        seen = [acknowledged.get(timeout=60) for _ in range(10 + 15 * kill)]
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        for thread in threads:
            thread.join()
    while not acknowledged.empty():
        seen.append(acknowledged.get())
    config = configuration(tmp_path)
    kept = {one.id: one.score for one in read_log(log_file(config.feedback))}
    assert {name: kept.get(name) for name, _ in seen} == dict(seen)


def test_both_clients_give_feedback(caller: Caller, connect_sdk: Connect) -> None:
    sdk = connect_sdk(str(caller.http.base_url), "team")
    answer = sdk.chat(SECRET)
    assert answer.routing is not None
    name = answer.routing.decision_id
    kept = sdk.feedback(name, "down", expert="legal", comment="no")
    assert kept == Feedback(decision_id=name, score=-1.0, expert="legal", comment="no")
    assert sdk.feedback(name, score=0.5).replaced is True
    with pytest.raises(NotFound) as missing:
        sdk.feedback("dec-nobody", "up")
    assert (missing.value.param, missing.value.code) == ("decision_id", "decision_not_found")
    with pytest.raises(InvalidRequest, match="`thumb` or `expert`"):
        sdk.feedback(name)
    with pytest.raises(InvalidRequest, match="thumb"):
        sdk.feedback(name, "sideways")


def test_the_command_line_gives_feedback(caller: Caller) -> None:
    name, url = caller.decide()["decision_id"], str(caller.http.base_url)

    def run(*words: str) -> tuple[int, str]:
        done = CliRunner().invoke(cli, ["feedback", *words, "--url", url])
        return done.exit_code, done.output

    assert run(name, "up") == (0, f"{name}: score 1\n")
    status, told = run(name, "--score", "-0.25", "--expert", "legal", "--comment", "[/b]")
    assert (status, told) == (
        0,
        f"{name}: score -0.25, legal should have answered, in place of what was said before\n",
    )
    assert run("dec-nobody", "down")[0] == 1
    assert "decision_id" in run("dec-nobody", "down")[1]
    assert run(name)[0] == 1
    assert run(name, "maybe")[0] == 2
    assert run(name, "--score", "2")[0] == 2
    (found,) = caller.place.log()
    assert found.opinion is not None
    assert (found.opinion.score, found.opinion.expert) == (-0.25, "legal")


def test_feedback_is_described(caller: Caller) -> None:
    described = caller.http.get("/openapi.json").json()
    post = described["paths"][FEEDBACK]["post"]
    assert {"200", "400", "403", "404", "500"} <= set(post["responses"])
    properties = described["components"]["schemas"]["FeedbackRequest"]["properties"]
    assert set(properties) == {"decision_id", "score", "thumb", "expert", "comment"}


def test_feedback_is_one_span_without_the_comment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with otlp_receiver() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint)
        with calling(tmp_path) as caller:
            name = caller.decide("a")["decision_id"]
            caller.say(name, "a", thumb="down", expert="legal", comment="secret words")
            caller.place.telemetry.flush()
    spans = {span.name: span for span in receiver.spans}
    told = {a.key: a.value for a in spans["POST /v1/feedback"].attributes}
    assert told["collegium.tenant"].string_value == "a"
    assert told["collegium.decision_id"].string_value == name
    assert told["collegium.feedback.score"].double_value == -1.0
    assert told["collegium.feedback.expert"].string_value == "legal"
    assert told["collegium.feedback.replaced"].bool_value is False
    assert not any(b"secret" in span.SerializeToString() for span in receiver.spans)
    routed = {a.key: a.value for a in spans["collegium.route"].attributes}
    assert routed["collegium.routing.propensity"].double_value == 1.0
    assert routed["collegium.routing.explored"].bool_value is False
