import time

import httpx
import pytest
from misbehaving import FRAME, REFUSALS, WORDS, Connect, Service, event

from orchestrator import Client, errors
from orchestrator.calls import FIRST_PAUSE, LONGEST_PAUSE, LONGEST_WAIT, pause
from orchestrator.wire import (
    ChatCompletion,
    Choice,
    ChunkChoice,
    Delta,
    ResponseMessage,
)

pytest_plugins = ["sdk_fixtures"]


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        ("lgal", errors.NotFound),
        ("long", errors.ContextTooLong),
        ("faulty", errors.InternalError),
        ("tomorrow", errors.Overloaded),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
def test_an_error_is_typed_and_final(
    sdk: Client, misbehaving: Service, model: str, kind: type[errors.CollegiumError], streamed: bool
) -> None:
    with pytest.raises(kind) as caught:
        sdk.stream("Hi", model=model).answer() if streamed else sdk.chat("Hi", model=model)
    assert type(caught.value) is kind
    assert caught.value.message == REFUSALS[model].message
    assert caught.value.param == "model"
    assert caught.value.status == REFUSALS[model].status
    assert len(misbehaving.bodies) == 1


@pytest.mark.parametrize("streamed", [False, True])
def test_a_busy_service_is_asked_again(sdk: Client, misbehaving: Service, streamed: bool) -> None:
    answer = sdk.stream("Hi", model="busy").answer() if streamed else sdk.chat("Hi", model="busy")
    assert answer.text == "".join(WORDS)
    assert len(misbehaving.bodies) == 3


@pytest.mark.parametrize("tries", [0, 1, 2])
def test_after_the_last_try_the_error_is_raised(
    connect_sdk: Connect, misbehaving_url: str, misbehaving: Service, tries: int
) -> None:
    with pytest.raises(errors.ExpertUnavailable, match="Not now"):
        connect_sdk(misbehaving_url, max_retries=tries).chat("Hi", model="down")
    assert len(misbehaving.bodies) == tries + 1


def test_retry_after_is_obeyed(sdk: Client, misbehaving: Service) -> None:
    start = time.monotonic()
    sdk.chat("Hi", model="later")
    assert 1.0 <= time.monotonic() - start < 3.0
    assert len(misbehaving.bodies) == 2


@pytest.mark.parametrize("streamed", [False, True])
def test_a_broken_connection_is_tried_again(connect_sdk: Connect, streamed: bool) -> None:
    tries: list[httpx.Request] = []

    def fail_once(request: httpx.Request) -> httpx.Response:
        tries.append(request)
        if len(tries) == 1:
            raise httpx.ReadError("reset", request=request)
        if streamed:
            body = event(ChunkChoice(delta=Delta(content="Hi"))) + "data: [DONE]\n\n"
            return httpx.Response(200, text=body)
        choice = Choice(message=ResponseMessage(content="Hi"))
        return httpx.Response(200, text=ChatCompletion(**FRAME, choices=[choice]).model_dump_json())

    sdk = connect_sdk(transport=httpx.MockTransport(fail_once))
    answer = sdk.stream("Hi").answer() if streamed else sdk.chat("Hi")
    assert answer.text == "Hi"
    assert len(tries) == 2


def test_nobody_at_the_address_is_told_with_the_address(connect_sdk: Connect) -> None:
    with pytest.raises(errors.ConnectionFailed, match="http://127.0.0.1:9"):
        connect_sdk("http://127.0.0.1:9", max_retries=0).models()


def test_a_slow_answer_times_out_and_is_not_asked_for_twice(
    connect_sdk: Connect, misbehaving_url: str, misbehaving: Service
) -> None:
    with pytest.raises(errors.TimedOut, match="raise `timeout`"):
        connect_sdk(misbehaving_url, timeout=0.2).chat("Hi", model="slow")
    assert len(misbehaving.bodies) == 1


Kinds = set[type[httpx.RequestError]]


def kinds(root: type[httpx.RequestError] = httpx.RequestError) -> Kinds:
    family: Kinds = {root}
    return family.union(*(kinds(child) for child in root.__subclasses__()))


def translation(kind: type[httpx.RequestError]) -> type[errors.CollegiumError]:
    if kind in (httpx.ReadTimeout, httpx.WriteTimeout, httpx.PoolTimeout, httpx.TimeoutException):
        return errors.TimedOut
    if issubclass(kind, httpx.TransportError):
        return errors.ConnectionFailed
    return errors.UnreadableResponse


@pytest.mark.parametrize("kind", sorted(kinds(), key=repr))
def test_every_transport_error_is_translated(
    connect_sdk: Connect, kind: type[httpx.RequestError]
) -> None:
    def fail(request: httpx.Request) -> httpx.Response:
        raise kind("broken", request=request)

    with pytest.raises(errors.CollegiumError) as caught:
        connect_sdk(transport=httpx.MockTransport(fail), max_retries=0).models()
    assert type(caught.value) is translation(kind)
    assert isinstance(caught.value.__cause__, kind)


def test_a_body_that_is_no_completion_is_unreadable(sdk: Client) -> None:
    with pytest.raises(errors.UnreadableResponse, match="no ChatCompletion. `id` is required"):
        sdk.chat("Hi", model="babble")


def test_a_completion_without_a_choice_is_unreadable(connect_sdk: Connect) -> None:
    empty = ChatCompletion(**FRAME, choices=[]).model_dump_json()
    transport = httpx.MockTransport(lambda request: httpx.Response(200, text=empty))
    with pytest.raises(errors.UnreadableResponse, match="no choice"):
        connect_sdk(transport=transport).chat("Hi")


def test_the_key_is_sent_and_never_shown(
    connect_sdk: Connect, misbehaving_url: str, misbehaving: Service
) -> None:
    sdk = connect_sdk(misbehaving_url, api_key="sk-secret\n")
    sdk.chat("Hi")
    assert misbehaving.headers[0]["authorization"] == "Bearer sk-secret"
    assert misbehaving.headers[0]["user-agent"].startswith("collegium-python/")
    assert "secret" not in repr(sdk)
    assert repr(sdk) == f"Client(base_url=URL('{misbehaving_url}'), api_key='***')"


def test_without_a_key_none_is_sent(sdk: Client, misbehaving: Service) -> None:
    sdk.chat("Hi")
    assert "authorization" not in misbehaving.headers[0]
    assert "api_key=None" in repr(sdk)


def test_address_and_key_come_from_the_environment(
    connect_sdk: Connect,
    misbehaving_url: str,
    misbehaving: Service,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLLEGIUM_BASE_URL", misbehaving_url)
    monkeypatch.setenv("COLLEGIUM_API_KEY", "sk-env")
    connect_sdk().chat("Hi")
    connect_sdk(api_key="sk-own").chat("Hi")
    sent = [headers["authorization"] for headers in misbehaving.headers]
    assert sent == ["Bearer sk-env", "Bearer sk-own"]


def test_a_key_that_no_header_can_carry_is_refused_unseen(connect_sdk: Connect) -> None:
    with pytest.raises(errors.InvalidRequest) as caught:
        connect_sdk(api_key="sk-geheim\r\nX-Evil: 1")
    assert caught.value.param == "api_key"
    assert "geheim" not in caught.value.message


@pytest.mark.parametrize("bad", ["localhost:8000", "ftp://host", "http://", "http://[::1"])
def test_a_base_url_that_is_no_address_is_refused(connect_sdk: Connect, bad: str) -> None:
    with pytest.raises(errors.InvalidRequest) as caught:
        connect_sdk(bad)
    assert caught.value.param == "base_url"


@pytest.mark.parametrize(
    ("base", "wanted"),
    [
        ("http://host:8000", "http://host:8000/v1/models"),
        ("http://host:8000/", "http://host:8000/v1/models"),
        ("http://host:8000/v1", "http://host:8000/v1/models"),
        ("http://host:8000/v1/", "http://host:8000/v1/models"),
        ("https://host/team", "https://host/team/v1/models"),
    ],
)
def test_the_base_url_may_end_as_people_write_it(
    connect_sdk: Connect, base: str, wanted: str
) -> None:
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        return httpx.Response(200, json={"data": []})

    assert connect_sdk(base, transport=httpx.MockTransport(answer)).models() == []
    assert asked == [wanted]


def test_loopback_is_never_asked_through_a_proxy(
    connect_sdk: Connect, misbehaving_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert connect_sdk(misbehaving_url, max_retries=0).models()


def test_pauses_double_up_to_a_bound() -> None:
    error = errors.ConnectionFailed("No")
    for attempt in range(3000):
        longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(attempt, 60))
        assert longest / 2 <= pause(error, attempt, 9999) <= longest


def test_pauses_differ_from_client_to_client() -> None:
    assert len({pause(errors.Overloaded("No"), 0, 2) for _ in range(20)}) > 10


def test_a_wait_the_server_asks_for_is_kept_or_refused() -> None:
    asked = errors.Overloaded("No", retry_after=LONGEST_WAIT)
    assert pause(asked, 0, 1) >= LONGEST_WAIT
    too_long = errors.Overloaded("No", retry_after=LONGEST_WAIT + 1)
    with pytest.raises(errors.Overloaded):
        pause(too_long, 0, 1)
