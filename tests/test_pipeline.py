"""The way of one request: what is reported, what is grounded, who may see what, who stands in."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator

import httpx
import pytest
from in_process import PATENT, REVERSED, Service, gathered

from experts.echo import EchoExpert
from experts.generation import (
    Busy,
    Chunk,
    FinishReason,
    Generation,
    Health,
    PromptTooLong,
    Usage,
)
from orchestrator.errors import (
    CollegiumError,
    ContextTooLong,
    ExpertUnavailable,
    NotFound,
    Overloaded,
    PermissionDenied,
)
from orchestrator.identity import Principal
from orchestrator.wire import RoutingReport

pytest_plugins = ["service_fixtures"]
pytestmark = pytest.mark.models

PROMPTS = [REVERSED, PATENT, "Hola, ¿qué tiempo hace hoy en Sevilla?", "hi", "x" * 3000]
CODER = Principal("coders", frozenset({"code", "general"}), frozenset({"snippets"}))
LAWYER = Principal("lawyers", frozenset({"legal", "general"}), frozenset({"statutes", "secrets"}))
FIELDS = {
    *("decision_id", "router_version", "mode", "reason", "fallback", "experts", "candidates"),
    *("k", "method", "weighting", "grounding", "timings_ms", "explored", "propensity", "stage"),
}


def check_invariants(report: RoutingReport, service: Service) -> None:
    assert set(report.model_dump(exclude={"support"})) == FIELDS
    assert {c.name for c in report.candidates} == set(service.config.experts)
    assert sum(c.probability for c in report.candidates) == pytest.approx(1, abs=1e-6)
    assert sum(e.weight for e in report.experts) == pytest.approx(1, abs=1e-9)
    assert report.k == len(report.experts)
    assert all(e in report.candidates for e in report.experts)
    assert {c.name for c in report.candidates if c.weight} == {e.name for e in report.experts}
    weights = [e.weight for e in report.experts]
    assert weights == sorted(weights, reverse=True)


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("routing", [{}, {"top_k": 3, "top_p": 1.0, "min_confidence": 0.0}])
async def test_a_report_adds_up(
    service: Service, prompt: str, routing: dict[str, float | int]
) -> None:
    task = service.task(prompt, routing=routing)
    _, finish = await gathered(service.pipeline(), task)
    check_invariants(finish.routing, service)
    check_invariants(await service.pipeline().route(task, ()), service)
    steps = finish.routing.timings_ms
    assert list(steps) == ["route", "retrieve", "first_token", "total"]
    assert list(steps.values()) == sorted(steps.values())


async def test_passages_reach_the_prompt_and_their_marks_the_text(service: Service) -> None:
    expert = EchoExpert("code")
    task = service.task(f"{REVERSED} {REVERSED}", model="code")
    text, finish = await gathered(service.pipeline(code=expert), task)
    prompt = "\n".join(said for _, said in expert.requests[0].messages)
    assert "The sequence must support the length protocol." in prompt
    assert finish.routing.grounding == "grounded"
    assert finish.routing.support is not None
    assert (finish.routing.support.sentences, finish.routing.support.supported) == (2, 2)
    assert len(finish.citations) == 2
    for citation in finish.citations:
        assert text[citation.start_index : citation.end_index] == "[1]"
        assert (citation.collection, citation.title) == ("snippets", "reversed()")
        assert citation.url == "https://docs.python.org/3/library/functions.html#reversed"
    assert text.count("[1]") == 2
    assert text.replace(" [1]", "") == f"{REVERSED} {REVERSED}"


async def test_without_grounding_the_prompt_is_untouched(service: Service) -> None:
    expert = EchoExpert("code")
    task = service.task(REVERSED, model="code", routing={"grounding": "off"})
    text, finish = await gathered(service.pipeline(code=expert), task)
    assert (text, finish.citations, finish.routing.grounding) == (REVERSED, (), "off")
    assert expert.requests[0].messages == (("user", REVERSED),)


async def test_nothing_close_grounds_nothing(service: Service) -> None:
    task = service.task("Bananas are yellow. Sail on!", model="code")
    text, finish = await gathered(service.pipeline(), task)
    assert (text, finish.citations) == ("Bananas are yellow. Sail on!", ())
    assert finish.routing.grounding == "none"


@pytest.mark.parametrize(
    "routing", [{"collections": ["statutes"]}, {"collections": []}, {"experts": ["multilingual"]}]
)
async def test_required_grounding_without_a_source_says_so_and_asks_nobody(
    service: Service, routing: dict[str, list[str]]
) -> None:
    task = service.task(REVERSED, routing={"grounding": "required", **routing})
    experts = {name: EchoExpert(name) for name in ("general", "code", "legal", "multilingual")}
    text, finish = await gathered(service.pipeline(**experts), task)
    assert (text, str(finish.reason)) == ("The sources do not say.", "stop")
    assert (finish.usage.prompt_tokens, finish.usage.completion_tokens) == (0, 0)
    assert (finish.routing.grounding, finish.citations) == ("not_in_sources", ())
    assert "no expert was asked" in finish.routing.reason
    assert not any(expert.requests for expert in experts.values())


async def test_required_grounding_with_a_passage_is_answered(service: Service) -> None:
    task = service.task(
        REVERSED, model="general", routing={"grounding": "required", "collections": ["snippets"]}
    )
    _, finish = await gathered(service.pipeline(), task)
    assert [c.collection for c in finish.citations] == ["snippets"]


class Says(EchoExpert):
    """An expert that answers with the text that it is given."""

    def __init__(self, text: str, longest: int = 100_000) -> None:
        super().__init__("says")
        self._text, self._longest = text, longest

    async def generate(self, request: Generation) -> AsyncGenerator[Chunk, None]:
        self.requests.append(request)
        size = sum(len(text) for _, text in request.messages)
        if size > self._longest:
            raise PromptTooLong(size, self._longest)
        yield Chunk(self._text)
        yield Chunk("", finish_reason=FinishReason.STOP, usage=Usage(1, 1))


@pytest.mark.parametrize(
    ("answer", "standing", "counts"),
    [
        ("The Python function reversed returns a reverse iterator.", "grounded", (1, 1)),
        (
            "The Python function reversed returns a reverse iterator. Cows eat grass all day.",
            "partly",
            (2, 1),
        ),
        ("Cows eat grass all day.", "not_in_sources", (1, 0)),
        ("The sources do not say.", "not_in_sources", (1, 0)),
        ("Yes, it is so.", "partly", (0, 0)),
    ],
)
async def test_the_report_tells_how_the_answer_stands_to_its_sources(
    service: Service, answer: str, standing: str, counts: tuple[int, int]
) -> None:
    task = service.task(REVERSED, model="code")
    _, finish = await gathered(service.pipeline(code=Says(answer)), task)
    support = finish.routing.support
    assert support is not None
    assert (finish.routing.grounding, (support.sentences, support.supported)) == (standing, counts)


@pytest.mark.parametrize(("grounding", "only"), [("auto", False), ("required", True)])
async def test_only_required_sources_bid_the_expert_be_silent(
    service: Service, grounding: str, only: bool
) -> None:
    expert = Says("The Python function reversed returns a reverse iterator.")
    task = service.task(REVERSED, model="code", routing={"grounding": grounding})
    await gathered(service.pipeline(code=expert), task)
    (request,) = expert.requests
    role, shown = request.messages[0]
    assert role == "system" and "<source " in shown
    assert ("The sources do not say." in shown) is only


async def test_sources_that_do_not_fit_are_left_out_and_the_answer_begins_again(
    service: Service,
) -> None:
    expert = Says("The Python function reversed returns a reverse iterator.", longest=len(REVERSED))
    text, finish = await gathered(
        service.pipeline(code=expert), service.task(REVERSED, model="code")
    )
    sizes = [sum(len(text) for _, text in request.messages) for request in expert.requests]
    assert sizes == sorted(sizes, reverse=True) and sizes[-1] == len(REVERSED)
    assert (finish.routing.grounding, finish.citations) == ("none", ())
    assert "[1]" not in text
    required = service.task(REVERSED, model="code", routing={"grounding": "required"})
    with pytest.raises(ContextTooLong):
        await gathered(service.pipeline(code=expert), required)


async def test_an_unknown_collection_is_named(service: Service) -> None:
    task = service.task(REVERSED, routing={"collections": ["snippets", "nowhere"]})
    with pytest.raises(NotFound, match="nowhere") as missing:
        await gathered(service.pipeline(), task)
    assert (missing.value.param, missing.value.code) == (
        "routing.collections",
        "collection_not_found",
    )


async def test_a_configured_collection_that_was_never_filled_leaves_the_others(
    service: Service,
) -> None:
    task = service.task(PATENT, model="legal")
    _, finish = await gathered(service.pipeline(), task)
    assert [c.collection for c in finish.citations] == ["statutes"]


@pytest.mark.parametrize("prompt", [REVERSED, PATENT])
def test_a_stream_and_a_whole_answer_are_the_same(service: Service, prompt: str) -> None:
    url = f"{service.url}/v1/chat/completions"
    body = {"messages": [{"role": "user", "content": prompt}], "model": "code+legal"}
    whole = httpx.post(url, json=body, timeout=30).json()["choices"][0]["message"]
    lines = httpx.post(url, json={**body, "stream": True}, timeout=30).text.split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert "".join(delta.get("content", "") for delta in deltas) == whole["content"]
    assert deltas[-1]["annotations"] == whole["annotations"] != []
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert chunks[-1]["x_routing"]["experts"]
    for note in whole["annotations"]:
        cited = note["url_citation"]
        assert whole["content"][cited["start_index"] : cited["end_index"]] == "[1]"


async def test_two_principals_get_only_what_is_theirs(service: Service) -> None:
    pipeline = service.pipeline()
    for principal, mine, theirs in ((CODER, REVERSED, PATENT), (LAWYER, PATENT, REVERSED)):
        _, finish = await gathered(pipeline, service.task(mine, principal))
        assert finish.citations
        for prompt in (mine, theirs, "The secret merger of the two firms is planned. Is it so?"):
            _, finish = await gathered(pipeline, service.task(prompt, principal))
            check_invariants(finish.routing, service)
            assert {e.name for e in finish.routing.experts} <= (principal.experts or set())
            assert {c.collection for c in finish.citations} <= (principal.collections or set())


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"model": "legal"}, "model"),
        ({"model": "code+legal"}, "model"),
        ({"routing": {"weights": {"legal": 1}}}, "routing"),
        ({"routing": {"experts": ["legal"]}}, "routing"),
        ({"routing": {"collections": ["secrets"]}}, "routing.collections"),
    ],
)
def test_what_is_not_open_to_a_principal_is_refused(
    service: Service, body: dict[str, object], param: str
) -> None:
    with pytest.raises(PermissionDenied) as refusal:
        service.task(REVERSED, CODER, **body)
    assert refusal.value.param is not None
    assert refusal.value.param.startswith(param)


async def test_collections_of_an_expert_that_are_closed_to_the_caller_are_not_read(
    service: Service,
) -> None:
    outsider = Principal("outsiders", None, frozenset())
    expert = EchoExpert("code")
    pipeline = service.pipeline(code=expert)
    _, finish = await gathered(pipeline, service.task(REVERSED, outsider, model="code"))
    assert finish.citations == ()
    assert expert.requests[0].messages == (("user", REVERSED),)


async def test_the_generalist_stands_in_for_a_failing_expert(service: Service) -> None:
    text, finish = await gathered(service.pipeline(), service.task("a b c", model="broken"))
    report = finish.routing
    assert text == "a b c"
    assert report.fallback
    assert [(e.name, e.weight) for e in report.experts] == [("general", 1.0)]
    assert "broken could not answer (broken: told to fail)" in report.reason
    assert report.mode == "single"
    check_invariants(report, service)


async def test_nobody_stands_in_for_a_caller_who_may_not_ask_the_generalist(
    service: Service,
) -> None:
    only = Principal("narrow", frozenset({"broken"}), None)
    general = EchoExpert("general")
    pipeline = service.pipeline(general=general)
    with pytest.raises(ExpertUnavailable, match="broken"):
        await gathered(pipeline, service.task("a b", only))
    assert general.requests == []


async def test_a_failing_generalist_is_told_to_the_caller(service: Service) -> None:
    failing = EchoExpert("general", fails=True)
    for model in ("general", "broken"):
        with pytest.raises(ExpertUnavailable, match="general") as error:
            await gathered(service.pipeline(general=failing), service.task("hi", model=model))
        assert error.value.status == 503


class Raises(EchoExpert):
    """An expert whose deployment raises what it is given."""

    def __init__(self, error: Exception) -> None:
        super().__init__("raises")
        self._error = error

    async def health(self) -> Health:
        raise self._error

    def generate(self, request: Generation) -> AsyncGenerator[Chunk, None]:
        raise self._error


@pytest.mark.parametrize(
    ("raised", "seen"), [(PromptTooLong(3000, 2048), ContextTooLong), (Busy("full"), Overloaded)]
)
async def test_what_the_request_itself_caused_is_told_and_nobody_stands_in(
    service: Service, raised: Exception, seen: type[CollegiumError]
) -> None:
    general = EchoExpert("general")
    pipeline = service.pipeline(code=Raises(raised), general=general)
    with pytest.raises(seen):
        await gathered(pipeline, service.task("hi", model="code"))
    assert general.requests == []


async def test_readiness_names_what_cannot_answer(service: Service) -> None:
    assert await service.pipeline().faults() == []
    found = await service.pipeline(general=Raises(Busy("full"))).faults()
    assert found == ["generalist: Busy: full"]


def test_a_failure_in_mid_stream_ends_the_stream_with_its_error(service: Service) -> None:
    body = {"messages": [{"role": "user", "content": "x"}], "model": "torn", "stream": True}
    response = httpx.post(f"{service.url}/v1/chat/completions", json=body)
    *chunks, error, done, rest = response.text.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    assert "once" in chunks[-1]
    detail = json.loads(error.removeprefix("data: "))["error"]
    assert (detail["code"], detail["type"]) == ("expert_unavailable", "server_error")
    assert "torn" in detail["message"]
