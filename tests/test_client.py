import inspect
import json
from typing import Any

import pytest
from misbehaving import NOTE, REPORT, USAGE, WORDS, Service

from orchestrator import AsyncClient, AsyncStream, Client, Stream, errors
from orchestrator.wire import (
    RoutingOptions,
)

pytest_plugins = ["sdk_fixtures"]


def test_a_chat_gives_text_citations_routing_and_usage(sdk: Client) -> None:
    answer = sdk.chat("Darf ich?")
    assert answer.text == str(answer) == "Ja, das dürfen Sie. [1]"
    assert answer.citations == [NOTE.url_citation]
    assert answer.routing == REPORT
    assert answer.usage == USAGE
    assert answer.finish_reason == "stop"
    assert answer.logprobs is None
    assert answer.raw.id == "chatcmpl-1"


def test_a_string_is_one_user_message(sdk: Client, misbehaving: Service) -> None:
    sdk.chat("Hi")
    assert misbehaving.bodies == [
        {"model": "auto", "messages": [{"role": "user", "content": "Hi"}]}
    ]


def test_text_that_is_no_unicode_is_sent_as_it_is(sdk: Client, misbehaving: Service) -> None:
    # What `surrogateescape` makes of an argument or a file name.
    sdk.chat("caf\udce9")
    assert misbehaving.bodies[-1]["messages"] == [{"role": "user", "content": "caf\udce9"}]


def test_a_conversation_and_every_option_reach_the_service(
    sdk: Client, misbehaving: Service
) -> None:
    turns = [{"role": "system", "content": "Short."}, {"role": "user", "content": "Hi"}]
    sdk.chat(
        turns,
        model="code+legal",
        routing={"mode": "blend", "weights": {"code": 1.0}},
        max_tokens=5,
        temperature=0.5,
        seed=1,
        stop=("END",),
    )
    assert misbehaving.bodies == [
        {
            "model": "code+legal",
            "messages": turns,
            "max_tokens": 5,
            "temperature": 0.5,
            "seed": 1,
            "stop": ["END"],
            "routing": {"mode": "blend", "weights": {"code": 1.0}},
        }
    ]


def test_routing_may_be_a_dict_or_an_object(sdk: Client, misbehaving: Service) -> None:
    sdk.chat("Hi", routing={"top_k": 2, "experts": ["code"]})
    sdk.chat("Hi", routing=RoutingOptions(top_k=2, experts=["code"]))
    assert misbehaving.bodies[0] == misbehaving.bodies[1]
    assert misbehaving.bodies[0]["routing"] == {"top_k": 2, "experts": ["code"]}


def test_an_answer_can_be_sent_back(sdk: Client, misbehaving: Service) -> None:
    turn = sdk.chat("Hi").raw.choices[0].message.model_dump()
    sdk.chat([{"role": "user", "content": "Hi"}, turn, {"role": "user", "content": "And?"}])
    assert misbehaving.bodies[-1]["messages"][1] == {"role": "assistant", "content": "".join(WORDS)}


def test_a_decision_comes_without_an_answer(sdk: Client, misbehaving: Service) -> None:
    assert sdk.route("Hi", routing={"top_k": 1}) == REPORT
    assert misbehaving.bodies[0]["routing"] == {"top_k": 1}


def test_models_are_listed(sdk: Client) -> None:
    assert [card.id for card in sdk.models()] == ["auto", "legal"]


@pytest.mark.parametrize("model", ["auto", "plain"])
def test_embeddings_keep_the_order_of_the_texts(sdk: Client, model: str) -> None:
    got = sdk.embeddings(["a", "bbb", "cc"], model=model)
    assert got == [[1.0, -1.5], [3.0, -1.5], [2.0, -1.5]]


def test_one_text_gives_one_vector(sdk: Client, misbehaving: Service) -> None:
    assert sdk.embeddings("four", dimensions=2) == [[4.0, -1.5]]
    assert misbehaving.bodies[0]["dimensions"] == 2


def test_an_embedding_that_is_not_float32_is_unreadable(sdk: Client) -> None:
    with pytest.raises(errors.UnreadableResponse, match="float32"):
        sdk.embeddings("a", model="broken")


@pytest.mark.parametrize("method", ["chat", "stream", "route"])
@pytest.mark.parametrize(
    ("arguments", "param"),
    [
        ({"temprature": 1}, "temprature"),
        ({"routing": {"topk": 1}}, "routing.topk"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"stream": True}, "stream"),
    ],
)
def test_a_mistake_is_named_before_anything_is_sent(
    sdk: Client, misbehaving: Service, method: str, arguments: dict[str, Any], param: str
) -> None:
    with pytest.raises(errors.InvalidRequest) as caught:
        getattr(sdk, method)("Hi", **arguments)
    assert caught.value.param == param
    assert misbehaving.bodies == []


def test_empty_messages_are_refused_before_anything_is_sent(
    sdk: Client, misbehaving: Service
) -> None:
    with pytest.raises(errors.InvalidRequest, match="`messages` must have at least 1 item"):
        sdk.chat([])
    assert misbehaving.bodies == []


def test_the_twins_offer_the_same_methods() -> None:
    for one, other in ((Client, AsyncClient), (Stream, AsyncStream)):
        assert public(one) == public(other)


def public(kind: type) -> dict[str, list[str]]:
    methods = inspect.getmembers(kind, inspect.isfunction)
    return {
        name.replace("aclose", "close"): list(inspect.signature(method).parameters)
        for name, method in methods
        if not name.startswith("_")
    }


def test_the_twins_take_the_same_arguments() -> None:
    one, other = (inspect.signature(kind).parameters for kind in (Client, AsyncClient))
    assert list(one) == list(other)
    assert [p.default for p in one.values()] == [p.default for p in other.values()]


def test_a_report_keeps_its_numbers_on_the_way(sdk: Client) -> None:
    sent = json.loads(REPORT.model_dump_json())
    assert sdk.route("Hi").model_dump() == sent
