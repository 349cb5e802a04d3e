"""Traces, read back from real receivers over the wire."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import grpc  # type: ignore[import-untyped]
import httpx
import pytest
from in_process import REVERSED, Service, serving
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from otlp_receiver import Receiver, otlp_receiver

from experts.echo import EchoExpert
from orchestrator.config import Config
from orchestrator.identity import EVERYONE
from orchestrator.replicas import ExpertReplica
from orchestrator.telemetry import Telemetry, carrier, incoming

pytest_plugins = ["service_fixtures"]

PARENTS = {
    "collegium.route": "POST /v1/chat/completions",
    "collegium.router.decide": "collegium.route",
    "collegium.retrieve": "POST /v1/chat/completions",
    "collegium.retriever.search": "collegium.retrieve",
    "collegium.combine": "POST /v1/chat/completions",
    "collegium.expert.generate": "collegium.combine",
}
PROMPT = f"{REVERSED} The zebra of Xanadu asks."


@dataclass
class GrpcReceiver(TraceServiceServicer):
    """The same as `otlp_receiver`, over gRPC."""

    spans: list[Span] = field(default_factory=list)

    def Export(
        self,
        request: ExportTraceServiceRequest,
        context: grpc.ServicerContext,
    ) -> ExportTraceServiceResponse:
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                self.spans.extend(scope.spans)
        return ExportTraceServiceResponse()


@contextmanager
def grpc_receiver() -> Iterator[tuple[GrpcReceiver, str]]:
    receiver = GrpcReceiver()
    server = grpc.server(ThreadPoolExecutor(2))
    add_TraceServiceServicer_to_server(receiver, server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield receiver, f"http://127.0.0.1:{port}"
    server.stop(0).wait()


@pytest.fixture(scope="module")
def traced(service: Service) -> Iterator[tuple[Receiver, str]]:
    """A service that exports to a receiver; its expert `mirror` asks the untraced service."""
    body = service.config.model_dump()
    body["experts"]["mirror"]["remote"] |= {"base_url": f"{service.url}/v1", "model": "general"}
    body["experts"]["mirror"]["collections"] = ["snippets"]
    body["limits"]["max_prompt_characters"] = 100_000
    config = Config.check(body)
    with otlp_receiver() as receiver, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint)
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        opened = Service.open(config)
        mirror = ExpertReplica(config, ["mirror"])
        failing = EchoExpert("general", fails=True)
        with serving(opened.app(mirror=mirror, general=failing)) as url:
            yield receiver, url


def attributes(span: Span) -> dict[str, Any]:
    return {pair.key: value(pair.value) for pair in span.attributes}


def value(found: AnyValue) -> Any:  # noqa: ANN401
    kind = found.WhichOneof("value")
    if kind == "array_value":
        return [value(item) for item in found.array_value.values]
    return getattr(found, str(kind))


def ask(url: str, prompt: str = PROMPT, traceparent: str = "", **body: object) -> httpx.Response:
    headers = {"traceparent": traceparent} if traceparent else {}
    sent = {"messages": [{"role": "user", "content": prompt}], **body}
    return httpx.post(f"{url}/v1/chat/completions", json=sent, headers=headers, timeout=30)


def arrived(spans: Callable[[], Sequence[Span]], count: int) -> list[Span]:
    """The spans once there are `count` of them; they come in batches."""
    deadline = time.monotonic() + 10
    while len(spans()) < count and time.monotonic() < deadline:
        time.sleep(0.02)
    return list(spans())


def new_trace(receiver: Receiver, known: set[str], count: int) -> list[Span]:
    def spans() -> list[Span]:
        fresh = {key: found for key, found in receiver.traces().items() if key not in known}
        assert len(fresh) <= 1
        return next(iter(fresh.values()), [])

    return arrived(spans, count)


@pytest.mark.models
@pytest.mark.parametrize("stream", [False, True])
def test_one_trace_holds_every_step_and_every_candidates_score(
    traced: tuple[Receiver, str], stream: bool
) -> None:
    receiver, url = traced
    known = set(receiver.traces())
    response = ask(url, model="mirror", stream=stream)
    assert response.status_code == 200
    spans = new_trace(receiver, known, len(PARENTS) + 1)
    by_name = {span.name: span for span in spans}
    assert len(spans) == len(by_name)
    assert set(by_name) == set(PARENTS) | set(PARENTS.values())
    for name, parent in PARENTS.items():
        assert by_name[name].parent_span_id == by_name[parent].span_id, name
    root = by_name["POST /v1/chat/completions"]
    assert root.parent_span_id == b""
    for span in spans:
        assert root.start_time_unix_nano <= span.start_time_unix_nano
        assert span.end_time_unix_nano <= root.end_time_unix_nano
        assert span.status.code != Status.STATUS_CODE_ERROR
    if not stream:
        check_scores(attributes(by_name["collegium.route"]), response.json()["x_routing"])
    assert attributes(root)["gen_ai.request.model"] == "mirror"
    combined = attributes(by_name["collegium.combine"])
    assert combined["gen_ai.usage.output_tokens"] == len(PROMPT.split())
    assert attributes(by_name["collegium.expert.generate"])["collegium.experts"] == ["mirror"]
    assert attributes(by_name["collegium.retrieve"])["collegium.passages"][0] == "reversed#1"


def check_scores(route: dict[str, Any], report: dict[str, Any]) -> None:
    scores = dict(
        zip(
            route["collegium.routing.candidates"],
            route["collegium.routing.probabilities"],
            strict=True,
        )
    )
    assert scores == {c["name"]: c["probability"] for c in report["candidates"]}
    assert sum(scores.values()) == pytest.approx(1)
    assert route["collegium.routing.chosen"] == [e["name"] for e in report["experts"]]
    assert route["collegium.routing.k"] == report["k"]
    assert route["collegium.routing.router_version"] == report["router_version"]


@pytest.mark.models
def test_embeddings_have_a_trace_of_their_own(traced: tuple[Receiver, str]) -> None:
    receiver, url = traced
    known = set(receiver.traces())
    body = {"input": ["Xanadu has a zebra", "x"], "encoding_format": "float"}
    found = httpx.post(f"{url}/v1/embeddings", json=body, timeout=30).json()
    spans = {span.name: span for span in new_trace(receiver, known, 2)}
    assert set(spans) == {"POST /v1/embeddings", "collegium.retriever.embed"}
    root, inner = spans["POST /v1/embeddings"], spans["collegium.retriever.embed"]
    assert (root.parent_span_id, inner.parent_span_id) == (b"", root.span_id)
    assert attributes(root) == {
        "gen_ai.operation.name": "embeddings",
        "gen_ai.request.model": "auto",
        "gen_ai.request.encoding_formats": ["float"],
        "gen_ai.usage.input_tokens": found["usage"]["prompt_tokens"],
        "gen_ai.embeddings.dimension.count": 384,
        "collegium.tenant": EVERYONE.tenant,
    }
    assert attributes(inner)["gen_ai.usage.input_tokens"] == found["usage"]["prompt_tokens"]


@pytest.mark.models
def test_embeddings_that_fail_mark_their_span(traced: tuple[Receiver, str]) -> None:
    receiver, url = traced
    known = set(receiver.traces())
    body = {"input": "x", "dimensions": 7}
    assert httpx.post(f"{url}/v1/embeddings", json=body, timeout=30).status_code == 400
    spans = {span.name: span for span in new_trace(receiver, known, 2)}
    failed = {n for n, span in spans.items() if span.status.code == Status.STATUS_CODE_ERROR}
    assert failed == {"POST /v1/embeddings"}


@pytest.mark.models
def test_the_callers_trace_goes_on(traced: tuple[Receiver, str]) -> None:
    receiver, url = traced
    known = set(receiver.traces())
    trace, span = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    parent = f"00-{trace}-{span}-01"
    ask(url, traceparent=parent, model="mirror", routing={"grounding": "off"})
    spans = new_trace(receiver, known, 5)
    assert {found.trace_id.hex() for found in spans} == {trace}
    (root,) = (found for found in spans if found.name.startswith("POST"))
    assert root.parent_span_id.hex() == span


@pytest.mark.models
@pytest.mark.parametrize("stream", [False, True])
def test_an_error_marks_its_spans(traced: tuple[Receiver, str], stream: bool) -> None:
    receiver, url = traced
    known = set(receiver.traces())
    assert ask(url, model="broken", stream=stream).status_code == 503
    spans = {span.name: span for span in new_trace(receiver, known, 4)}
    failed = {n for n, span in spans.items() if span.status.code == Status.STATUS_CODE_ERROR}
    assert failed == {"POST /v1/chat/completions", "collegium.combine"}
    assert "general" in spans["collegium.combine"].status.message


@pytest.mark.models
def test_a_failing_replica_marks_its_own_span(traced: tuple[Receiver, str]) -> None:
    receiver, url = traced
    known = set(receiver.traces())
    # The untraced service behind `mirror` allows no prompt of this length.
    assert ask(url, "x" * 40_000, model="mirror").status_code == 503
    spans = {span.name: span for span in new_trace(receiver, known, 7)}
    failed = spans["collegium.expert.generate"]
    assert failed.status.code == Status.STATUS_CODE_ERROR
    assert "mirror" in failed.status.message


@pytest.mark.models
def test_no_span_holds_what_was_said(traced: tuple[Receiver, str]) -> None:
    receiver, url = traced
    for model in ("mirror", "broken", "torn", "auto"):
        ask(url, model=model)
    ask(url, model="auto", routing={"grounding": "required"})
    time.sleep(0.3)
    assert receiver.spans
    for span in receiver.spans:
        for secret in ("zebra", "Xanadu", "length protocol"):
            assert secret not in str(span), span.name


@pytest.mark.models
def test_traces_travel_by_grpc_too(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    with grpc_receiver() as (receiver, endpoint):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
        telemetry = Telemetry("collegium", "gateway")
        with serving(replace(service, telemetry=telemetry).app()) as url:
            assert ask(url, model="code").status_code == 200
        telemetry.shutdown()
        spans = {span.name: span for span in receiver.spans}
    # Router and retriever of this service were opened without an endpoint.
    assert set(spans) == {name for name in PARENTS if name.count(".") == 1} | set(PARENTS.values())


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "ENDPOINT", "OTEL_SDK_DISABLED": "true"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "ENDPOINT", "OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_nothing_is_sent_unless_it_was_asked_for(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    with otlp_receiver() as receiver:
        for name, text in variables.items():
            monkeypatch.setenv(name, text.replace("ENDPOINT", receiver.endpoint))
        telemetry = Telemetry("collegium", "gateway")
        with telemetry.span("a") as span:
            assert not span.is_recording()
        telemetry.shutdown()
        assert receiver.spans == []


def test_the_configuration_can_switch_traces_off(monkeypatch: pytest.MonkeyPatch) -> None:
    with otlp_receiver() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint)
        for enabled in (False, True):
            telemetry = Telemetry("collegium", "gateway", enabled=enabled)
            with telemetry.span(f"enabled {enabled}"):
                pass
            telemetry.shutdown()
        assert [span.name for span in receiver.spans] == ["enabled True"]


def test_a_trace_that_is_not_recorded_here_is_still_handed_on() -> None:
    given = incoming({"traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01", "host": "x"})
    assert given == (("traceparent", "00-" + "a" * 32 + "-" + "b" * 16 + "-01"),)
    with Telemetry("collegium", "gateway").span("a", given) as span:
        handed = dict(carrier(span))
    assert handed["traceparent"].split("-")[1] == "a" * 32
