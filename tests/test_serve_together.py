"""The embedded default as a user runs it: one process started, real experts asked over HTTP."""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

import httpx
import openai
import pytest
import yaml
from live_service import Live, free_port, live_service
from otlp_receiver import Receiver, otlp_receiver

from orchestrator import Answer, AsyncClient, Client
from orchestrator.config import DEFAULT_FILE
from orchestrator.decision_log import read_log

pytestmark = [pytest.mark.cluster, pytest.mark.models, pytest.mark.timeout(900)]

CITED = "What must I keep when I redistribute software under the BSD licence?"
MIXED = (
    "Does the GPL allow me to link this C++ library into my proprietary program? "
    "Show the CMake line."
)
EXPERTS = ("general", "code", "legal", "multilingual")


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with otlp_receiver() as found:
        yield found


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, receiver: Receiver) -> Iterator[Live]:
    folder, port = tmp_path_factory.mktemp("together"), free_port()
    body = yaml.safe_load(DEFAULT_FILE.read_text())
    # A remote expert whose upstream is this very service: a second base without a second machine.
    upstream = {"base_url": f"http://127.0.0.1:{port}/v1", "model": "general"}
    body["experts"]["mirror"] = {"remote": upstream}
    body["feedback"] = {"directory": str(folder / "feedback")}
    config = folder / "collegium.yaml"
    config.write_text(yaml.safe_dump(body))
    subprocess.run(
        [sys.executable, "-c", "from orchestrator.cli import main; main()", "index", "build"],
        check=True,
    )
    env = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
        "OTEL_BSP_SCHEDULE_DELAY": "500",
        # A cluster that was not asked for is not joined; nobody listens there.
        "RAY_ADDRESS": "127.0.0.1:9",
    }
    with live_service(folder, config, port, env) as live:
        yield live


@pytest.fixture(scope="module")
def client(service: Live) -> Iterator[Client]:
    with Client(base_url=service.url, timeout=300) as found:
        yield found


@pytest.mark.parametrize(
    ("prompt", "experts"),
    [
        ("Write a Python function that reverses a linked list.", {"code"}),
        ("Is a contract valid if one party signed it under duress?", {"legal"}),
        ("¿Cuál es la mejor época del año para visitar Sevilla?", {"multilingual"}),
        ("Mein Sohn hat Fieber, was soll ich tun?", {"multilingual"}),
        ("Hi there! How has your day been?", {"general"}),
        (MIXED, {"legal", "code"}),
    ],
)
def test_a_prompt_reaches_the_right_experts(client: Client, prompt: str, experts: set[str]) -> None:
    answer = client.chat(prompt, max_tokens=8)
    assert answer.routing is not None
    assert {expert.name for expert in answer.routing.experts} == experts
    assert answer.routing.mode == ("single" if len(experts) == 1 else "mixture")
    assert sum(expert.weight for expert in answer.routing.experts) == pytest.approx(1)
    assert sum(c.probability for c in answer.routing.candidates) == pytest.approx(1)


def test_the_first_question_of_the_readme_is_answered_with_a_citation(client: Client) -> None:
    answer = client.chat(CITED, max_tokens=96)
    assert answer.citations
    for citation in answer.citations:
        mark = answer.text[citation.start_index : citation.end_index]
        assert mark.startswith("[") and mark.endswith("]")
        assert citation.collection == "licences"


def test_weights_given_by_the_caller_are_obeyed(client: Client) -> None:
    weights = {"code": 3.0, "multilingual": 1.0}
    answer = client.chat("Hello", max_tokens=4, routing={"weights": weights, "mode": "blend"})
    assert answer.routing is not None
    found = {expert.name: expert.weight for expert in answer.routing.experts}
    assert found == pytest.approx({"code": 0.75, "multilingual": 0.25})
    assert answer.routing.mode == "blend"


def test_what_only_the_gateway_knows_reaches_the_router(client: Client) -> None:
    asked = {"session": "s", "max_cost": 1.0, "deadline_ms": 200_000}
    client.chat("Write a Python function that reverses a list.", max_tokens=4, routing=asked)
    followed = client.chat("make it shorter", max_tokens=4, routing=asked)
    assert followed.routing is not None
    assert followed.routing.experts[0].name == "code"
    assert "the session raised code" in followed.routing.reason


def test_feedback_is_kept_with_the_decision_that_it_is_about(client: Client, service: Live) -> None:
    answer = client.chat(MIXED, max_tokens=4)
    assert answer.routing is not None
    name = answer.routing.decision_id
    assert client.feedback(name, "up", expert="legal").replaced is False
    assert client.feedback(name, score=0.5).replaced is True
    log = read_log(service.log.parent / "feedback" / "decisions.sqlite")
    found = next(row for row in log if row.id == name)
    assert (found.score, set(found.chosen)) == (0.5, {"legal", "code"})
    assert found.read is not None and found.latency is not None


def test_experts_of_different_bases_are_ranked(client: Client) -> None:
    off = {"grounding": "off"}
    asked = {"weights": {"legal": 1, "mirror": 1}, **off}
    answer = client.chat("What is a contract?", max_tokens=16, routing=asked)
    assert answer.routing is not None
    assert answer.routing.mode == "rank"
    assert answer.routing.method in {f"best of 2 drafts: {name}" for name in ("legal", "mirror")}
    alone = {
        name: client.chat("What is a contract?", model=name, max_tokens=16, routing=off).text
        for name in ("legal", "mirror")
    }
    assert answer.text in alone.values()


def test_a_remote_experts_answer_equals_its_upstreams(client: Client) -> None:
    prompt = "Name three colours."
    mirrored = client.chat(prompt, model="mirror", max_tokens=16)
    direct = client.chat(prompt, model="general", max_tokens=16)
    assert mirrored.text == direct.text
    assert mirrored.usage == direct.usage


async def test_thirty_concurrent_streams_equal_their_solo_answers(service: Live) -> None:
    asked = [(f"Question {n % 6}: what is {n % 6} plus {n}?", EXPERTS[n % 4]) for n in range(30)]
    async with AsyncClient(base_url=service.url, timeout=400) as client:
        solo = [await _ask(client, *one) for one in asked]
        delays: list[float] = []
        watching = asyncio.create_task(_watch(service.url, delays))
        together = await asyncio.gather(*(_ask(client, *one) for one in asked))
        watching.cancel()
    assert [answer.text for answer in together] == [answer.text for answer in solo]
    assert {a.finish_reason for a in together} <= {"stop", "length"}
    assert len(delays) >= 5
    assert statistics.median(delays) < 0.1


async def _ask(client: AsyncClient, prompt: str, expert: str) -> Answer:
    async with client.stream(
        prompt, model=expert, max_tokens=16, routing={"grounding": "off"}
    ) as stream:
        async for _event in stream:
            pass
        return await stream.answer()


async def _watch(url: str, delays: list[float]) -> None:
    async with httpx.AsyncClient() as http:
        while True:
            started = time.monotonic()
            (await http.get(f"{url}/healthz", timeout=10)).raise_for_status()
            delays.append(time.monotonic() - started)
            await asyncio.sleep(0.1)


def test_one_trace_holds_every_step_and_every_candidate(
    client: Client, service: Live, receiver: Receiver
) -> None:
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    headers = {"traceparent": f"00-{trace_id}-b7ad6b7169203331-01"}
    body = {"messages": [{"role": "user", "content": CITED}], "max_tokens": 8}
    found = httpx.post(
        f"{service.url}/v1/chat/completions", json=body, headers=headers, timeout=300
    ).json()
    steps = {
        "POST /v1/chat/completions",
        "collegium.route",
        "collegium.router.decide",
        "collegium.retrieve",
        "collegium.retriever.search",
        "collegium.combine",
        "collegium.expert.generate",
    }
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        spans = {span.name: span for span in receiver.traces().get(trace_id, [])}
        if steps <= set(spans):
            break
        time.sleep(0.2)
    assert steps <= set(spans)
    assert spans["collegium.router.decide"].parent_span_id == spans["collegium.route"].span_id
    assert spans["collegium.expert.generate"].parent_span_id == spans["collegium.combine"].span_id
    attributes = {a.key: a.value for a in spans["collegium.route"].attributes}
    names = [v.string_value for v in attributes["collegium.routing.candidates"].array_value.values]
    scores = [
        v.double_value for v in attributes["collegium.routing.probabilities"].array_value.values
    ]
    told = {c["name"]: c["probability"] for c in found["x_routing"]["candidates"]}
    assert dict(zip(names, scores, strict=True)) == pytest.approx(told)


def test_the_official_sdk_works_unchanged(service: Live) -> None:
    sdk = openai.OpenAI(base_url=f"{service.url}/v1", api_key="none", timeout=300)
    messages = [{"role": "user", "content": "Say hello."}]
    whole = sdk.chat.completions.create(model="general", messages=messages, max_tokens=12)
    stream = sdk.chat.completions.create(
        model="general", messages=messages, max_tokens=12, stream=True
    )
    pieces = [c.choices[0].delta.content or "" for c in stream if c.choices]
    assert "".join(pieces) == whole.choices[0].message.content
    assert {model.id for model in sdk.models.list()} == {"auto", "mirror", *EXPERTS}
    vectors = sdk.embeddings.create(model="auto", input=["a cat", "a dog"]).data
    assert [len(v.embedding) for v in vectors] == [384, 384]
    assert sum(x * x for x in vectors[0].embedding) == pytest.approx(1, abs=1e-4)
    with pytest.raises(openai.NotFoundError) as missing:
        sdk.chat.completions.create(model="nobody", messages=messages)
    assert missing.value.code == "model_not_found"


def test_a_prompt_beyond_the_models_context_is_refused(service: Live) -> None:
    body = {"model": "general", "messages": [{"role": "user", "content": "x y " * 7000}]}
    response = httpx.post(f"{service.url}/v1/chat/completions", json=body, timeout=60)
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "context_length_exceeded"
    assert response.json()["error"]["param"] == "messages"


def test_the_start_shows_nothing_but_its_own_lines(service: Live) -> None:
    head, greeting, *rest = service.log.read_text().partition("Collegium is ready at ")
    lines = (line.strip() for line in head.splitlines())
    shown = [line for line in lines if line and not line.startswith("start deploy")]
    # `mirror` is unknown to the gate; the terminal's width decides how this is broken into lines.
    assert " ".join(shown) == (
        "the gate does not know mirror: they answer only when a request names them. "
        "`collegium router teach NAME --prompts FILE` teaches it."
    )
    assert greeting
    assert rest[0].splitlines()[0] == f"{service.url}  (Ctrl-C stops it)"
    assert f"curl {service.url}/v1/chat/completions " in rest[0]
    assert rest[0].rstrip().splitlines()[-1] == f"collegium chat --url {service.url}"


def test_a_second_start_on_the_same_port_says_so(service: Live) -> None:
    port = service.url.rsplit(":", 1)[1]
    command = [sys.executable, "-c", "from orchestrator.cli import main; main()", "serve"]
    second = subprocess.run([*command, "--port", port], capture_output=True, text=True, timeout=60)
    assert second.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in second.stderr


def test_ctrl_c_stops_the_service_cleanly(service: Live) -> None:
    started = time.monotonic()
    assert service.stop() == 0
    # Ray's own wait for load balancers, 30 s, is off.
    assert time.monotonic() - started < 25
    assert service.log.read_text().endswith("stopping\nstopped\n")
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{service.url}/healthz", timeout=5)
