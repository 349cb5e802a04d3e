import pickle
import re
from email.utils import formatdate
from time import time

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from ray.exceptions import RayTaskError

from orchestrator import errors
from orchestrator.errors import CollegiumError
from orchestrator.wire import ChatRequest, ErrorDetail

CLIENT_ONLY = {errors.ConnectionFailed, errors.TimedOut, errors.UnreadableResponse}


def tree(root: type[CollegiumError] = CollegiumError) -> set[type[CollegiumError]]:
    return {root}.union(*(tree(child) for child in root.__subclasses__()))


FAMILY = sorted(
    (kind for kind in tree() if kind.__module__ == "orchestrator.errors"),
    key=lambda kind: kind.__name__,
)


def test_every_error_is_served_or_only_in_the_client() -> None:
    assert set(errors.SERVED) | CLIENT_ONLY | {CollegiumError} == set(FAMILY)
    assert not set(errors.SERVED) & CLIENT_ONLY


def test_the_docstring_draws_the_whole_tree_with_statuses() -> None:
    drawing = errors.__doc__ or ""
    drawn = dict(re.findall(r"─ (\w+) +(\d{3})", drawing))
    assert drawn == {kind.__name__: str(kind.status) for kind in errors.SERVED}
    assert all(kind.__name__ in drawing for kind in FAMILY)


def test_codes_are_unique() -> None:
    codes = [kind.code for kind in errors.SERVED]
    assert len(set(codes)) == len(codes)


@pytest.mark.parametrize(
    ("kind", "status", "type_", "code"),
    [
        (errors.InvalidRequest, 400, "invalid_request_error", "invalid_request"),
        (errors.ContextTooLong, 400, "invalid_request_error", "context_length_exceeded"),
        (errors.AuthenticationFailed, 401, "invalid_request_error", "invalid_api_key"),
        (errors.NotFound, 404, "invalid_request_error", "model_not_found"),
        (errors.Overloaded, 429, "rate_limit_error", "overloaded"),
        (errors.ExpertUnavailable, 503, "server_error", "expert_unavailable"),
        (errors.DeadlineExceeded, 504, "timeout_error", "deadline_exceeded"),
    ],
)
def test_status_type_and_code_are_stable(
    kind: type[CollegiumError], status: int, type_: str, code: str
) -> None:
    assert (kind.status, kind.type, kind.code) == (status, type_, code)


@pytest.mark.parametrize("kind", FAMILY)
def test_an_error_crosses_processes_whole(kind: type[CollegiumError]) -> None:
    sent = kind("Why", param="messages[0]", code="special", retry_after=2.5)
    received = pickle.loads(pickle.dumps(sent))
    assert type(received) is kind
    assert vars(received) == vars(sent)
    assert str(received) == "Why"


@pytest.mark.parametrize("kind", errors.SERVED)
def test_an_error_survives_the_wire(kind: type[CollegiumError]) -> None:
    sent = kind("Why", param="routing.top_k")
    body = errors.to_body(sent).model_dump_json()
    received = errors.from_response(kind.status, body, {})
    assert type(received) is kind
    assert (received.message, received.param) == ("Why", "routing.top_k")
    assert (received.status, received.type, received.code) == (kind.status, kind.type, kind.code)


@pytest.mark.parametrize("kind", errors.SERVED)
def test_an_error_in_a_stream_needs_no_status(kind: type[CollegiumError]) -> None:
    detail = errors.to_body(kind("Why")).error
    assert type(errors.from_detail(detail)) is kind


def test_a_body_is_openais_error_object() -> None:
    error = errors.NotFound("No model `lgal`; did you mean `legal`?", param="model")
    assert errors.to_body(error).model_dump() == {
        "error": {
            "message": "No model `lgal`; did you mean `legal`?",
            "type": "invalid_request_error",
            "param": "model",
            "code": "model_not_found",
        }
    }


def test_the_twin_that_ray_raises_gives_the_same_body() -> None:
    error = errors.Overloaded("Full", param="model", code="quota_spent", retry_after=3)
    twin = RayTaskError("f", "traceback", error).as_instanceof_cause()
    assert isinstance(twin, errors.Overloaded)
    assert errors.to_body(twin) == errors.to_body(error)
    assert twin.status == 429
    assert twin.retry_after == 3


def test_an_own_code_is_kept() -> None:
    error = errors.from_response(
        429, '{"error": {"message": "m", "type": "tokens", "code": "insufficient_quota"}}', {}
    )
    assert type(error) is errors.Overloaded
    assert (error.code, error.type) == ("insufficient_quota", "tokens")


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, errors.InvalidRequest),
        (405, errors.InvalidRequest),
        (418, errors.InvalidRequest),
        (307, errors.InternalError),
        (500, errors.InternalError),
        (502, errors.ExpertUnavailable),
        (599, errors.InternalError),
    ],
)
def test_a_foreign_status_finds_its_nearest_error(status: int, kind: type[CollegiumError]) -> None:
    error = errors.from_response(status, b"<html>Sorry</html>", {})
    assert type(error) is kind
    assert error.status == status
    assert error.message == f"The server answered {status}: <html>Sorry</html>"


def test_a_long_or_broken_foreign_body_is_cut() -> None:
    error = errors.from_response(500, b"\xff" * 9000, {})
    assert len(error.message) < 150


def test_a_type_decides_where_status_and_code_are_missing() -> None:
    detail = ErrorDetail(message="m", type="rate_limit_error")
    assert type(errors.from_detail(detail)) is errors.Overloaded
    assert type(errors.from_detail(ErrorDetail(message="m"))) is errors.InternalError


def test_retry_after_is_read_in_seconds() -> None:
    assert errors.from_response(429, "", {"Retry-After": "7"}).retry_after == 7
    assert errors.from_response(429, "", httpx.Headers({"retry-after": " 0.5 "})).retry_after == 0.5


def test_retry_after_is_read_as_a_date() -> None:
    date = formatdate(time() + 30, usegmt=True)
    wait = errors.from_response(503, "", {"retry-after": date}).retry_after
    assert wait is not None
    assert 25 < wait <= 30


def test_a_date_in_the_past_means_now() -> None:
    date = "Wed, 21 Oct 2015 07:28:00 GMT"
    assert errors.from_response(503, "", {"retry-after": date}).retry_after == 0


@pytest.mark.parametrize("headers", [{}, {"retry-after": "soon"}, {"retry-after": "-3"}])
def test_without_a_readable_retry_after_there_is_none(headers: dict[str, str]) -> None:
    assert errors.from_response(429, "", headers).retry_after is None


def test_other_problems_are_named_beside_the_first() -> None:
    problems = [
        {"type": "missing", "loc": ("body", name), "msg": "Field required", "input": {}}
        for name in ("a", "b", "b", "c", "d", "e")
    ]
    error = errors.from_validation(problems)
    assert error.param == "a"
    told, also = error.message.split(" Also at fault: ")
    assert told == "`a` is required but was not sent."
    assert also == "`b`, `c`, `d` and others."


def test_what_was_sent_is_quoted_at_bearable_length() -> None:
    problem = {"type": "int_type", "loc": ("n",), "msg": "Input should be int", "input": "x" * 999}
    message = errors.from_validation([problem]).message
    assert message.startswith('`n` must be int, but "xxx')
    assert len(message) < 130


def service() -> FastAPI:
    app = FastAPI()

    @app.post("/chat")
    async def chat(body: ChatRequest) -> str:
        return body.messages[0].text

    @app.exception_handler(RequestValidationError)
    async def refuse(request: Request, exc: RequestValidationError) -> JSONResponse:
        error = errors.from_validation(exc.errors())
        return JSONResponse(errors.to_body(error).model_dump(), status_code=error.status)

    return app


@pytest.mark.parametrize(
    ("content", "param", "words"),
    [
        ('{"messages": [{"role": "user", "content": 5}]}', "messages[0].content", "but 5"),
        ('{"messages": [], "routing": {"topk": 1}}', "messages", "`routing.topk`"),
        ('{"messages": [', None, "not valid JSON"),
        ("[]", None, "The body must be a JSON object"),
        ("", None, "The body is required"),
    ],
)
async def test_fastapis_problems_become_one_error(
    content: str, param: str | None, words: str
) -> None:
    transport = httpx.ASGITransport(service())
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as http:
        headers = {"content-type": "application/json"}
        response = await http.post("/chat", content=content, headers=headers)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param
    assert words in response.json()["error"]["message"]
