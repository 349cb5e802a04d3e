import pytest

from orchestrator import errors, wire
from orchestrator.events import AnswerReader, EventParser

EVENTS = [
    ("data: one\n\n", ["one"]),
    ("data:one\r\n\r\n", ["one"]),
    ("data: one\r\rdata: two\r\r", ["one", "two"]),
    ("\ufeffdata: one\n\n", ["one"]),
    (": ping\n\ndata: one\n: ping\n\n", ["one"]),
    ("data: one\ndata: two\n\n", ["one\ntwo"]),
    ("data: one\r\ndata: two\r\n\r\n", ["one\ntwo"]),
    ("event: message\nid: 7\nretry: 10\ndata:  spaced\n\n", [" spaced"]),
    ("data: ü€𝄞\r\n\r\ndata: [DONE]\n\n", ["ü€𝄞", "[DONE]"]),
    ("data\n\nevent: empty\n\ndata: a:b\n\n", ["", "a:b"]),
    ("data: one\n\ndata: unfinished", ["one"]),
    ("\n\n\n\r\n", []),
]


@pytest.mark.parametrize(("text", "wanted"), EVENTS)
def test_events_are_read_wherever_the_bytes_are_cut(text: str, wanted: list[str]) -> None:
    data = text.encode()
    for first in range(len(data) + 1):
        for second in range(first, len(data) + 1):
            parser = EventParser()
            pieces = (data[:first], data[first:second], data[second:])
            assert [e for piece in pieces for e in parser.feed(piece)] == wanted


def chunk(text: str) -> bytes:
    choice = wire.ChunkChoice(delta=wire.Delta(content=text), logprobs=logprobs(text))
    whole = wire.ChatCompletionChunk(id="c", created=1, model="m", choices=[choice])
    return f"data: {whole.model_dump_json()}\n\n".encode()


def logprobs(text: str) -> wire.ChoiceLogprobs:
    return wire.ChoiceLogprobs(content=[wire.TokenLogprob(token=text, logprob=-1.0)])


def test_nothing_counts_after_the_end() -> None:
    reader = AnswerReader()
    reader.feed(chunk("one") + b"data: [DONE]\n\n" + chunk("two"))
    assert reader.answer().text == "one"


def test_logprobs_of_all_chunks_are_joined() -> None:
    reader = AnswerReader()
    reader.feed(chunk("one") + chunk("two") + b"data: [DONE]\n\n")
    joined = reader.answer().logprobs
    assert joined is not None
    assert joined.content is not None
    assert [token.token for token in joined.content] == ["one", "two"]


def test_text_and_error_keep_their_order_in_one_piece() -> None:
    reader = AnswerReader()
    reader.feed(chunk("one") + b'data: {"error": {"message": "Gone", "code": "overloaded"}}\n\n')
    taken = reader.take()
    assert taken is not None
    assert (taken.delta, taken.logprobs) == ("one", logprobs("one"))
    with pytest.raises(errors.Overloaded, match="Gone"):
        reader.take()


def test_an_unfinished_stream_has_no_answer() -> None:
    reader = AnswerReader()
    reader.feed(chunk("one"))
    with pytest.raises(errors.UnreadableResponse, match="no whole answer"):
        reader.answer()
