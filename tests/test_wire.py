import json

import pytest
from openai.types.chat import ChatCompletion as OpenAICompletion
from openai.types.chat import ChatCompletionChunk as OpenAIChunk
from openai.types.create_embedding_response import CreateEmbeddingResponse
from pydantic import ValidationError

from orchestrator import wire
from orchestrator.collection_wire import DocumentInput

HELLO = [{"role": "user", "content": "Hello"}]
CITATION = wire.UrlCitation(
    start_index=9,
    end_index=12,
    title="MIT License",
    url="https://spdx.org/licenses/MIT.html",
    collection="licences",
    passage_id="mit-3",
    start=120,
    end=240,
    score=0.75,
)
REPORT = wire.RoutingReport(
    decision_id="d1",
    router_version="abc",
    mode="mixture",
    reason="two domains",
    fallback=False,
    experts=[wire.RoutedExpert(name="legal", weight=1.0, probability=0.9)],
    candidates=[
        wire.RoutedExpert(name="legal", weight=1.0, probability=0.9),
        wire.RoutedExpert(name="general", weight=0.0, probability=0.1),
    ],
    k=1,
)


def completion() -> wire.ChatCompletion:
    message = wire.ResponseMessage(
        content="You may. [1]", annotations=[wire.Annotation(url_citation=CITATION)]
    )
    token = wire.TokenLogprob(
        token="You",
        logprob=-0.5,
        bytes=[89, 111, 117],
        top_logprobs=[wire.TopLogprob(token="You", logprob=-0.5, bytes=[89, 111, 117])],
    )
    choice = wire.Choice(
        message=message, finish_reason="stop", logprobs=wire.ChoiceLogprobs(content=[token])
    )
    return wire.ChatCompletion(
        id="chatcmpl-1",
        created=1_700_000_000,
        model="legal",
        choices=[choice],
        usage=wire.Usage(prompt_tokens=3, completion_tokens=4, total_tokens=7),
        x_routing=REPORT,
    )


def test_the_report_has_exactly_the_promised_keys() -> None:
    promised = (
        "decision_id router_version mode reason fallback experts candidates k method weighting"
        " grounding timings_ms stage explored propensity"
    )
    assert set(json.loads(REPORT.model_dump_json())) == set(promised.split())
    assert set(REPORT.experts[0].model_dump()) == {"name", "weight", "probability"}


def test_an_answer_can_be_sent_back_as_the_openai_sdk_dumps_it() -> None:
    answer = OpenAICompletion.model_validate_json(completion().model_dump_json())
    turn = answer.choices[0].message.model_dump()
    request = wire.ChatRequest.model_validate({"messages": [*HELLO, turn, *HELLO]})
    assert request.messages[1].text == "You may. [1]"
    assert not {"annotations", "refusal"} & request.model_dump()["messages"][1].keys()


def test_a_completion_is_what_the_openai_sdk_expects() -> None:
    theirs = OpenAICompletion.model_validate_json(completion().model_dump_json())
    choice = theirs.choices[0]
    assert choice.finish_reason == "stop"
    assert choice.logprobs is not None and choice.logprobs.content is not None
    assert choice.logprobs.content[0].top_logprobs[0].bytes == [89, 111, 117]
    assert choice.message.annotations is not None
    cited = choice.message.annotations[0].url_citation
    assert (cited.start_index, cited.end_index, cited.title) == (9, 12, "MIT License")
    assert cited.model_extra == {
        "collection": "licences",
        "passage_id": "mit-3",
        "start": 120,
        "end": 240,
        "score": 0.75,
    }
    assert theirs.model_extra is not None
    assert theirs.model_extra["x_routing"] == json.loads(REPORT.model_dump_json())


def test_a_chunk_is_what_the_openai_sdk_expects() -> None:
    delta = wire.Delta(content="You")
    chunk = wire.ChatCompletionChunk(
        id="c", created=1, model="m", choices=[wire.ChunkChoice(delta=delta)]
    )
    theirs = OpenAIChunk.model_validate_json(chunk.model_dump_json())
    assert theirs.object == "chat.completion.chunk"
    assert theirs.choices[0].delta.content == "You"
    assert theirs.choices[0].finish_reason is None


def test_a_chunk_says_no_more_than_it_must() -> None:
    delta = wire.Delta(content="You")
    chunk = wire.ChatCompletionChunk(
        id="c", created=1, model="m", choices=[wire.ChunkChoice(delta=delta)]
    )
    assert json.loads(chunk.model_dump_json()) == {
        "id": "c",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [
            {"index": 0, "delta": {"content": "You"}, "logprobs": None, "finish_reason": None}
        ],
    }


def test_embeddings_are_what_the_openai_sdk_expects() -> None:
    body = wire.EmbeddingsResponse(
        data=[wire.Embedding(index=0, embedding=[0.5, -0.5])],
        model="m",
        usage=wire.Usage(prompt_tokens=2, total_tokens=2),
    )
    theirs = CreateEmbeddingResponse.model_validate_json(body.model_dump_json())
    assert theirs.data[0].embedding == [0.5, -0.5]
    assert theirs.usage.total_tokens == 2


def test_a_client_reads_a_newer_server() -> None:
    body = json.loads(completion().model_dump_json())
    body["new"] = 1
    body["x_routing"]["mode"] = "telepathy"
    body["x_routing"]["new"] = [2]
    body["choices"][0]["message"]["new"] = {}
    read = wire.ChatCompletion.model_validate(body)
    assert read.x_routing is not None
    assert read.x_routing.mode == "telepathy"
    assert read.choices == completion().choices


def test_every_name_of_the_vocabulary_is_listed() -> None:
    assert wire.__all__ == sorted(wire.__all__)
    classes = {
        name
        for name, value in vars(wire).items()
        if isinstance(value, type) and value.__module__.startswith("orchestrator.")
    }
    assert {name for name in classes if not name.startswith("_")} == set(wire.__all__)


def test_a_title_that_every_passage_repeats_is_short() -> None:
    assert len(DocumentInput(id="a", text="b", title="t" * 300).title) == 300
    with pytest.raises(ValidationError, match="title"):
        DocumentInput(id="a", text="b", title="t" * 301)
