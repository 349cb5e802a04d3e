import threading

import pytest
from misbehaving import WORDS, Service

from orchestrator import Client, errors

pytest_plugins = ["sdk_fixtures"]


def test_a_stream_gives_the_text_as_it_comes(sdk: Client) -> None:
    with sdk.stream("Darf ich?") as stream:
        assert [event.delta for event in stream] == WORDS
        assert stream.text == "".join(WORDS)


def test_a_stream_adds_up_to_the_same_answer_as_a_chat(sdk: Client, misbehaving: Service) -> None:
    assert sdk.stream("Darf ich?").answer() == sdk.chat("Darf ich?")
    assert misbehaving.bodies[0].pop("stream") is True
    assert misbehaving.bodies[0].pop("stream_options") == {"include_usage": True}
    assert misbehaving.bodies[0] == misbehaving.bodies[1]


def test_a_stream_is_not_sent_before_it_is_read(sdk: Client, misbehaving: Service) -> None:
    stream = sdk.stream("Hi")
    assert misbehaving.bodies == []
    assert next(iter(stream)).delta == WORDS[0]
    assert len(misbehaving.bodies) == 1
    stream.close()


def test_a_finished_stream_yields_nothing_more(sdk: Client, misbehaving: Service) -> None:
    stream = sdk.stream("Hi")
    assert len(list(stream)) == len(WORDS)
    assert list(stream) == []
    assert stream.answer().text == "".join(WORDS)
    assert len(misbehaving.bodies) == 1


def test_closing_a_stream_cancels_it_at_the_service(sdk: Client, misbehaving: Service) -> None:
    with sdk.stream("Hi", model="endless") as stream:
        for _, got in zip(range(20), stream, strict=False):
            assert got.delta
        assert not misbehaving.gone.is_set()
    assert misbehaving.gone.wait(5)
    assert list(stream) == []
    with pytest.raises(errors.UnreadableResponse, match="no whole answer"):
        stream.answer()


def test_an_error_in_a_stream_is_raised_after_the_text_before_it(
    sdk: Client, misbehaving: Service
) -> None:
    stream = sdk.stream("Hi", model="fails")
    with pytest.raises(errors.ExpertUnavailable, match="Gone"):
        list(stream)
    assert list(stream) == []
    assert stream.text == "".join(WORDS)
    assert len(misbehaving.bodies) == 1


def test_a_stream_that_breaks_off_is_an_error(sdk: Client, misbehaving: Service) -> None:
    stream = sdk.stream("Hi", model="cut")
    with pytest.raises(errors.ConnectionFailed, match="broke off"):
        list(stream)
    assert stream.text == "".join(WORDS)
    assert len(misbehaving.bodies) == 1


def test_an_event_that_is_no_chunk_is_quoted(sdk: Client) -> None:
    with pytest.raises(errors.UnreadableResponse, match="nonsense"):
        sdk.stream("Hi", model="garbles").answer()


def test_one_client_may_be_shared_between_threads(misbehaving_url: str) -> None:
    texts: list[str] = []
    with Client(misbehaving_url) as sdk:
        threads = [
            threading.Thread(target=lambda: texts.append(sdk.stream("Hi").answer().text))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert texts == ["".join(WORDS)] * 8
