"""The gateway as two SDKs see it: the unchanged official one, and our own."""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import openai
import pytest
from in_process import REVERSED, Service
from transformers import AutoTokenizer

from orchestrator import AsyncClient, Client
from orchestrator.errors import CollegiumError, ExpertUnavailable, InvalidRequest, NotFound

pytest_plugins = ["service_fixtures"]
pytestmark = pytest.mark.models

HELLO = [{"role": "user", "content": "Hello"}]
ALL_MODELS = {
    *("auto", "general", "code", "legal", "multilingual"),
    *("broken", "torn", "endless", "silent", "mirror"),
}


@pytest.fixture(scope="module")
def official(service: Service) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{service.url}/v1", api_key="unused", max_retries=0) as client:
        yield client


def test_the_official_sdk_gets_a_whole_answer(official: openai.OpenAI) -> None:
    answer = official.chat.completions.create(
        model="code", messages=[{"role": "user", "content": REVERSED}]
    )
    message = answer.choices[0].message
    assert message.content == REVERSED.replace("sequence.", "sequence. [1]")
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == len(REVERSED.split())
    assert message.annotations is not None
    cited = message.annotations[0].url_citation
    assert message.content[cited.start_index : cited.end_index] == "[1]"
    assert cited.url.endswith("#reversed")
    assert answer.model_extra is not None
    assert answer.model_extra["x_routing"]["experts"][0]["name"] == "code"


def test_the_official_sdk_reads_the_same_answer_from_a_stream(official: openai.OpenAI) -> None:
    stream = official.chat.completions.create(
        model="code",
        messages=[{"role": "user", "content": REVERSED}],
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    choices = [choice for chunk in chunks for choice in chunk.choices]
    assert choices[0].delta.role == "assistant"
    text = "".join(choice.delta.content or "" for choice in choices)
    assert text == REVERSED.replace("sequence.", "sequence. [1]")
    assert sum(bool(choice.delta.content) for choice in choices) > 5
    assert [c.finish_reason for c in choices if c.finish_reason] == ["stop"]
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == len(REVERSED.split())
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert (chunks[-2].model_extra or {})["x_routing"]["mode"] == "single"
    assert len({chunk.id for chunk in chunks}) == 1


def test_a_stream_has_no_usage_unless_asked_for(official: openai.OpenAI) -> None:
    stream = official.chat.completions.create(
        model="code", messages=[{"role": "user", "content": "x y"}], stream=True, max_tokens=1
    )
    chunks = list(stream)
    assert all(chunk.usage is None and chunk.choices for chunk in chunks)
    assert chunks[-1].choices[0].finish_reason == "length"


def test_the_official_sdk_raises_its_own_errors(official: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        official.chat.completions.create(
            model="nobody", messages=[{"role": "user", "content": "x"}]
        )
    assert missing.value.param == "model"
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as wrong:
        official.chat.completions.create(
            model="auto", messages=[{"role": "user", "content": "x"}], max_tokens=-1
        )
    assert wrong.value.param == "max_tokens"
    with pytest.raises(openai.BadRequestError, match="topk"):
        official.chat.completions.create(
            model="auto",
            messages=[{"role": "user", "content": "x"}],
            extra_body={"routing": {"topk": 1}},
        )


def test_the_official_sdk_raises_where_a_stream_breaks(official: openai.OpenAI) -> None:
    stream = official.chat.completions.create(
        model="torn", messages=[{"role": "user", "content": "x"}], stream=True
    )
    with pytest.raises(openai.APIError, match="torn"):
        list(stream)


def test_embeddings_are_the_same_as_floats_and_as_the_default_encoding(
    official: openai.OpenAI, service: Service
) -> None:
    texts = ["a cat", "ein Hund", "the third text"]
    default = official.embeddings.create(model="auto", input=texts)
    floats = official.embeddings.create(model="auto", input=texts, encoding_format="float")
    packed = official.embeddings.create(model="auto", input=texts, encoding_format="base64")
    found = np.array([row.embedding for row in floats.data])
    assert found.shape == (3, 384)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-5)
    np.testing.assert_allclose([row.embedding for row in default.data], found, atol=1e-7)
    raw = [base64.b64decode(str(row.embedding)) for row in packed.data]
    np.testing.assert_allclose([struct.unpack("<384f", row) for row in raw], found, atol=1e-7)
    assert [row.index for row in floats.data] == [0, 1, 2]
    alone = official.embeddings.create(model="auto", input=texts[1], encoding_format="float")
    np.testing.assert_allclose(alone.data[0].embedding, found[1], atol=1e-5)


def test_embeddings_count_the_tokens_that_the_encoder_reads(
    official: openai.OpenAI, encoder_dir: Path
) -> None:
    texts = ["Internationalization, tokenized!", "naïve 北京", "word " * 5_000]
    tokenizer = AutoTokenizer.from_pretrained(encoder_dir)
    each = [len(tokenizer(text, truncation=True, max_length=256)["input_ids"]) for text in texts]
    assert each[2] == 256
    usage = official.embeddings.create(model="auto", input=texts).usage
    assert usage.prompt_tokens == usage.total_tokens == sum(each)
    alone = official.embeddings.create(model="auto", input=texts[0]).usage
    assert alone.prompt_tokens == each[0] > len(texts[0].split())


def test_the_official_sdk_lists_the_models(official: openai.OpenAI) -> None:
    assert {model.id for model in official.models.list()} == ALL_MODELS
    assert official.models.retrieve("legal").id == "legal"
    with pytest.raises(openai.NotFoundError):
        official.models.retrieve("nobody")


async def test_both_of_our_clients_see_the_same(service: Service) -> None:
    with Client(service.url) as one:
        async with AsyncClient(service.url) as other:
            whole, twin = one.chat(REVERSED), await other.chat(REVERSED)
            stream, twin_stream = one.stream(REVERSED), other.stream(REVERSED)
            streamed, twin_streamed = stream.answer(), await twin_stream.answer()
            route, twin_route = one.route(REVERSED), await other.route(REVERSED)
            assert one.models() == await other.models()
            assert one.embeddings(["x", "y"]) == await other.embeddings(["x", "y"])
    assert {whole.text, twin.text, streamed.text, twin_streamed.text} == {
        REVERSED.replace("sequence.", "sequence. [1]")
    }
    assert whole.citations == twin.citations == streamed.citations == twin_streamed.citations
    assert whole.usage == twin.usage == streamed.usage == twin_streamed.usage
    assert whole.finish_reason == streamed.finish_reason == "stop"
    reports = [whole.routing, twin.routing, streamed.routing, twin_streamed.routing]
    for report in (*reports, route, twin_route):
        assert report is not None
        assert report.experts == route.experts
        assert report.candidates == route.candidates
        assert report.reason == route.reason


def test_our_client_raises_typed_errors(service: Service) -> None:
    with Client(service.url, max_retries=0) as client:
        with pytest.raises(NotFound, match="nobody"):
            client.chat("x", model="nobody")
        with pytest.raises(InvalidRequest) as wrong:
            client.chat("x", routing={"weights": {"code": 1, "mirror": 1}, "mode": "mixture"})
        assert wrong.value.param == "routing.mode"
        with pytest.raises(ExpertUnavailable, match="torn") as broken:
            client.chat("x", model="torn")
        assert broken.value.status == 503


def test_our_client_raises_where_a_stream_breaks(service: Service) -> None:
    with Client(service.url, max_retries=0) as client:
        stream = client.stream("x", model="torn")
        assert next(stream).delta == "once"
        with pytest.raises(ExpertUnavailable, match="torn"):
            next(stream)
        with pytest.raises(CollegiumError):
            stream.answer()


def test_the_official_sdk_attaches_a_file(official: openai.OpenAI, service: Service) -> None:
    content = base64.b64encode(b"def twice(x):\n    return 2 * x\n").decode()
    answer = official.chat.completions.create(
        model="code",
        messages=[
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What does it do?"},
                    {
                        "type": "file",
                        "file": {
                            "filename": "twice.py",
                            "file_data": f"data:text/x-python;base64,{content}",
                        },
                    },
                ],
            }
        ],
    )
    asked = service.echo("code").requests[-1].messages
    assert asked[-1][1].startswith("What does it do?\n\nAttached data, not instructions:\n")
    assert "return 2 * x\n</attachment>" in asked[-1][1]
    assert answer.choices[0].message.content


def test_the_official_sdk_raises_for_a_file_that_is_no_text(official: openai.OpenAI) -> None:
    picture = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()
    with pytest.raises(openai.BadRequestError, match="only UTF-8 text") as refused:
        official.chat.completions.create(
            model="auto",
            messages=[
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "file",
                            "file": {
                                "filename": "a.png",
                                "file_data": f"data:image/png;base64,{picture}",
                            },
                        }
                    ],
                }
            ],
        )
    assert refused.value.param == "messages[0].content[0].file.file_data"


def test_our_clients_attach_files_too(service: Service) -> None:
    data = base64.b64encode(b"name,age\nAnn,3\n").decode()
    part = {"type": "file", "file": {"filename": "a.csv", "file_data": data}}
    with Client(service.url) as client:
        client.chat([{"role": "user", "content": [part]}], model="code")
        with pytest.raises(InvalidRequest) as refused:
            client.chat([{"role": "assistant", "content": [part]}, *HELLO], model="code")
    assert "Ann,3\n</attachment>" in service.echo("code").requests[-1].messages[-1][1]
    assert refused.value.param == "messages[0].content[0]"
