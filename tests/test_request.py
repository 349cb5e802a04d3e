import pickle
from typing import Any

import pytest
from pydantic import ValidationError

from orchestrator import wire
from orchestrator.errors import InvalidRequest, from_validation

HELLO = [{"role": "user", "content": "Hello"}]


def refusal(body: object, kind: type[wire.StrictModel] = wire.ChatRequest) -> InvalidRequest:
    with pytest.raises(ValidationError) as caught:
        kind.model_validate(body)
    return from_validation(caught.value)


def chat(**fields: object) -> dict[str, Any]:
    return {"messages": HELLO, **fields}


def test_a_full_request_is_read() -> None:
    request = wire.ChatRequest.model_validate(
        chat(
            model="code+legal",
            max_tokens=16,
            temperature=0,
            top_p=1,
            seed=7,
            stop=["\n", "END"],
            stream=True,
            stream_options={"include_usage": True},
            logprobs=True,
            top_logprobs=2,
            routing={"mode": "mixture", "weights": {"code": 3, "legal": 1}},
        )
    )
    assert request.token_limit == 16
    assert request.stops == ("\n", "END")
    assert request.routing is not None
    assert request.routing.mode is wire.Mode.MIXTURE
    assert request.routing.weights == {"code": 3.0, "legal": 1.0}


def test_text_parts_are_joined() -> None:
    parts = [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]
    request = wire.ChatRequest.model_validate({"messages": [{"role": "user", "content": parts}]})
    assert request.messages[0].text == "Hello"


def test_one_stop_string_is_one_stop() -> None:
    assert wire.ChatRequest.model_validate(chat(stop="END")).stops == ("END",)


def test_either_name_of_the_token_limit_is_obeyed() -> None:
    assert wire.ChatRequest.model_validate(chat(max_completion_tokens=9)).token_limit == 9
    assert wire.ChatRequest.model_validate(chat()).token_limit is None


def test_routing_has_exactly_the_promised_keys() -> None:
    promised = (
        "top_k top_p mode experts min_confidence collections grounding weights weighting"
        " deadline_ms priority max_cost session locale preferences filter cache"
    )
    assert set(wire.RoutingOptions.model_fields) == set(promised.split())
    assert not wire.RoutingOptions.not_served


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"messages": []}, "messages", "at least 1 item"),
        ({"messages": "hi"}, "messages", "must be a valid list"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "is required"),
        ({"messages": [*HELLO, {"role": "user", "content": 5}]}, "messages[1].content", "but 5"),
        ({"messages": [{"role": "user", "content": []}]}, "messages[0].content", "at least 1"),
        ({"messages": [{"role": "tool", "content": ""}]}, "messages[0].role", "'developer'"),
        ({"messages": ["hi"]}, "messages[0]", "must be a JSON object"),
        ({"model": ""}, "model", "at least 1 character"),
        ({"max_tokens": -1}, "max_tokens", "greater than or equal to 1, but -1"),
        ({"max_tokens": "8"}, "max_tokens", 'valid integer, but "8"'),
        ({"max_tokens": True}, "max_tokens", "valid integer, but true"),
        ({"max_tokens": 1, "max_completion_tokens": 2}, "max_tokens", "differs"),
        ({"temperature": 2.1}, "temperature", "less than or equal to 2"),
        ({"temperature": float("nan")}, "temperature", "finite"),
        ({"top_p": 0}, "top_p", "greater than 0"),
        ({"top_p": 1.5}, "top_p", "less than or equal to 1"),
        ({"seed": 2**63}, "seed", "less than"),
        ({"stop": ["a"] * 5}, "stop", "at most 4 items"),
        ({"stop": 3}, "stop", "a string or a list"),
        ({"stop": ["a", ""]}, "stop[1]", "at least 1 character"),
        ({"stream": "yes"}, "stream", "valid boolean"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "needs `stream`"),
        ({"top_logprobs": 2}, "top_logprobs", "needs `logprobs`"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "less than or equal to 20"),
        ({"n": 2}, "n", "is not supported beyond the value 1"),
        ({"frequency_penalty": 0.5}, "frequency_penalty", "beyond the value 0"),
        ({"presence_penalty": -1}, "presence_penalty", "beyond the value 0"),
        ({"tools": []}, "tools", "is not supported; leave it out"),
        ({"tool_choice": "auto"}, "tool_choice", "is not supported"),
        ({"functions": [{}]}, "functions", "is not supported"),
        ({"response_format": {"type": "json_object"}}, "response_format", '{"type": "text"}'),
        ({"logit_bias": {"5": 1}}, "logit_bias", "is not supported"),
        ({"modalities": ["text", "audio"]}, "modalities", '["text"]'),
        ({"routing": 3}, "routing", "must be a JSON object"),
        ({"routing": {"top_k": 0}}, "routing.top_k", "greater than or equal to 1"),
        ({"routing": {"top_k": 2.0}}, "routing.top_k", "valid integer"),
        ({"routing": {"top_p": 0}}, "routing.top_p", "greater than 0"),
        ({"routing": {"mode": "blnd"}}, "routing.mode", "'fuse', but \"blnd\""),
        ({"routing": {"experts": []}}, "routing.experts", "at least 1 item"),
        ({"routing": {"min_confidence": 2}}, "routing.min_confidence", "less than"),
        ({"routing": {"grounding": "on"}}, "routing.grounding", "'required'"),
        ({"routing": {"weights": {}}}, "routing.weights", "at least 1 item"),
        ({"routing": {"weights": {"a": 0}}}, "routing.weights", "more than 0"),
        ({"routing": {"weights": {"a": -1}}}, "routing.weights.a", "but -1 was sent"),
        ({"routing": {"weights": {"a": float("inf")}}}, "routing.weights.a", "finite"),
        ({"routing": {"weighting": "fixed"}}, "routing.weighting", "'posterior'"),
        ({"routing": {"max_cost": -0.1}}, "routing.max_cost", "greater than or equal to 0"),
        ({"routing": {"max_cost": "1"}}, "routing.max_cost", "valid number"),
        ({"routing": {"session": ""}}, "routing.session", "at least 1 character"),
        ({"routing": {"session": "x" * 129}}, "routing.session", "at most 128 characters"),
        ({"routing": {"locale": "pt_BR"}}, "routing.locale", "BCP 47 language tag"),
        ({"routing": {"preferences": {"a": 1.5}}}, "routing.preferences.a", "less than or equal"),
        ({"routing": {"preferences": {"a": "x"}}}, "routing.preferences.a", "valid number"),
        ({"routing": {"preferences": [1]}}, "routing.preferences", "a JSON object"),
        ({"routing": {"priority": 11}}, "routing.priority", "less than or equal to 10, but 11"),
        ({"routing": {"priority": -11}}, "routing.priority", "greater than or equal to -10"),
        ({"routing": {"priority": 1.0}}, "routing.priority", "valid integer"),
        ({"routing": {"deadline_ms": 0}}, "routing.deadline_ms", "greater than or equal to 1"),
    ],
)
def test_a_bad_value_is_named_with_its_path(fields: dict[str, Any], param: str, words: str) -> None:
    error = refusal(chat(**fields))
    assert error.param == param
    assert f"`{param}`" in error.message
    assert words in error.message


@pytest.mark.parametrize(
    "tag",
    [
        *(
            "de",
            "pt-BR",
            "zh-Hant-TW",
            "sr-Latn-RS",
            "es-419",
            "zh-yue-HK",
            "de-CH-1901",
            "sl-rozaj",
        ),
        *(
            "en-a-myext-b-another",
            "hy-Latn-IT-arevela",
            "de-DE-u-co-phonebk",
            "az-Arab-x-AZE",
            "PT",
        ),
    ],
)
def test_a_tag_of_the_form_of_bcp_47_is_taken(tag: str) -> None:
    assert wire.RoutingOptions(locale=tag).locale == tag


@pytest.mark.parametrize(
    "tag", ["", "d", "de-", "-de", "de--CH", "de_CH", "123", "a-DE", "ar-a", "german-x", "dé"]
)
def test_a_tag_of_another_form_is_refused(tag: str) -> None:
    assert refusal(chat(routing={"locale": tag})).param == "routing.locale"


def test_an_unknown_key_is_named_with_its_nearest_match() -> None:
    error = refusal(chat(routing={"topk": 1}))
    assert error.param == "routing.topk"
    assert "did you mean `top_k`?" in error.message
    assert "deadline_ms" in error.message


def test_an_unknown_key_that_resembles_nothing_lists_what_is_allowed() -> None:
    error = refusal(chat(zzz=1))
    assert error.param == "zzz"
    assert "did you mean" not in error.message
    assert "max_completion_tokens" in error.message


def test_an_image_is_refused_by_name() -> None:
    part = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
    error = refusal({"messages": [{"role": "user", "content": [part]}]})
    assert error.param == "messages[0].content[0].image_url"
    assert "is not supported" in error.message


def test_values_that_ask_for_nothing_are_accepted() -> None:
    harmless: dict[str, Any] = {
        "n": 1,
        "frequency_penalty": 0.0,
        "presence_penalty": 0,
        "tools": None,
        "tool_choice": "none",
        "response_format": {"type": "text"},
        "modalities": ["text"],
        "logit_bias": {},
        "temperature": None,
        "stop": None,
        "routing": None,
    }
    request = wire.ChatRequest.model_validate(chat(**harmless))
    assert request.messages[0].text == "Hello"


def test_the_whole_body_must_be_an_object() -> None:
    with pytest.raises(ValidationError) as caught:
        wire.ChatRequest.model_validate_json(b"[]")
    error = from_validation(caught.value)
    assert error.param is None
    assert error.message == "The body must be a JSON object, but [] was sent."


def test_malformed_json_is_told_with_its_place() -> None:
    with pytest.raises(ValidationError) as caught:
        wire.ChatRequest.model_validate_json(b'{"messages": [}')
    assert "not valid JSON" in from_validation(caught.value).message
    assert "column 15" in from_validation(caught.value).message


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": [1, 2]}, "input[0]"),
        ({"input": "a", "dimensions": 0}, "dimensions"),
        ({"input": "a", "encoding_format": "int8"}, "encoding_format"),
        ({"input": "a", "inputs": "b"}, "inputs"),
    ],
)
def test_a_bad_embeddings_request_names_the_key(fields: dict[str, Any], param: str) -> None:
    assert refusal(fields, wire.EmbeddingsRequest).param == param


def test_embedding_inputs_are_always_a_list_of_texts() -> None:
    assert wire.EmbeddingsRequest(input="a").texts == ["a"]
    assert wire.EmbeddingsRequest(input=["a", "b"]).texts == ["a", "b"]


def test_requests_cross_processes_and_cannot_be_changed() -> None:
    routing = wire.RoutingOptions(mode=wire.Mode.BLEND, weights={"code": 1.0})
    message = wire.ChatMessage(role=wire.Role.USER, content="Hi")
    request = wire.ChatRequest(messages=[message], routing=routing)
    assert pickle.loads(pickle.dumps(request)) == request
    with pytest.raises(ValidationError, match="frozen"):
        request.model = "other"
