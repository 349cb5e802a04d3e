"""Every error that a caller can meet, as one tree.

CollegiumError
├── InvalidRequest             400  the request says something that cannot be served
│   └── ContextTooLong         400  messages and answer do not fit into the model's context
├── AuthenticationFailed       401  no key, or one that is not known
├── PermissionDenied           403  the caller may not do this
├── NotFound                   404  no such model, expert, collection, decision or address
├── PayloadTooLarge            413  the body is over the limit
├── UnsupportedMediaType       415  the body is not application/json
├── Unprocessable              422  well formed, but cannot be carried out as asked
├── Overloaded                 429  queues are full or a quota is spent; `retry_after` says when
├── InternalError              500  a fault of the service
├── ExpertUnavailable          503  no expert can answer now; `retry_after` may say when
├── DeadlineExceeded           504  the caller's deadline passed before the answer was whole
└── only in the client, where no error body arrived
    ├── ConnectionFailed            no connection, or it broke
    │   └── TimedOut                nothing arrived in time
    └── UnreadableResponse          what arrived is not what the API promises

On the wire each is OpenAI's error object: `to_body` writes it, `from_response` and `from_detail`
read it. Errors pickle with all that they carry.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from pydantic import ValidationError

from orchestrator.validation import Problem, path, sentence, shown
from orchestrator.wire import ErrorBody, ErrorDetail

_MAX_NAMED = 3


class CollegiumError(Exception):
    """Root of the tree; `status` is the HTTP status, `type` and `code` are OpenAI's fields.

    `param` is the dotted path of the key at fault; `retry_after` is in seconds.
    """

    status: int = 500
    type: str = "server_error"
    code: str = "internal_error"

    # No class-level defaults for these: Ray re-raises errors as twins that find what the instance
    # carries only where the class has no attribute of that name.
    message: str
    param: str | None
    retry_after: float | None

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after = retry_after
        if code is not None:
            self.code = code


class InvalidRequest(CollegiumError):
    """The request says something that cannot be served; `param` names the key."""

    status = 400
    type = "invalid_request_error"
    code = "invalid_request"


class ContextTooLong(InvalidRequest):
    """Messages and answer do not fit into the model's context."""

    code = "context_length_exceeded"


class AuthenticationFailed(CollegiumError):
    """No key was given, or one that is not known."""

    status = 401
    type = "invalid_request_error"
    code = "invalid_api_key"


class PermissionDenied(CollegiumError):
    """The caller may not do this."""

    status = 403
    type = "permission_error"
    code = "permission_denied"


class NotFound(CollegiumError):
    """No such model, expert, collection, decision or address."""

    status = 404
    type = "invalid_request_error"
    code = "model_not_found"


class PayloadTooLarge(CollegiumError):
    """The body is over the limit."""

    status = 413
    type = "invalid_request_error"
    code = "payload_too_large"


class UnsupportedMediaType(CollegiumError):
    """The body is not application/json."""

    status = 415
    type = "invalid_request_error"
    code = "unsupported_media_type"


class Unprocessable(CollegiumError):
    """The request is well formed but cannot be carried out as asked."""

    status = 422
    type = "invalid_request_error"
    code = "unprocessable"


class Overloaded(CollegiumError):
    """Queues are full or a quota is spent; try again after `retry_after` seconds."""

    status = 429
    type = "rate_limit_error"
    code = "overloaded"


class InternalError(CollegiumError):
    """A fault of the service."""


class ExpertUnavailable(CollegiumError):
    """No expert can answer now."""

    status = 503
    code = "expert_unavailable"


class DeadlineExceeded(CollegiumError):
    """The caller's deadline passed before the answer was whole."""

    status = 504
    type = "timeout_error"
    code = "deadline_exceeded"


class ConnectionFailed(CollegiumError):
    """The client got no connection, or it broke."""

    status = 0
    type = "connection_error"
    code = "connection_failed"


class TimedOut(ConnectionFailed):
    """Nothing arrived at the client in time."""

    code = "timed_out"


class UnreadableResponse(CollegiumError):
    """What arrived at the client is not what the API promises."""

    status = 0
    type = "response_error"
    code = "unreadable_response"


# Of the classes that share a status or a type, the first stands for it.
SERVED: tuple[type[CollegiumError], ...] = (
    InvalidRequest,
    ContextTooLong,
    AuthenticationFailed,
    PermissionDenied,
    NotFound,
    PayloadTooLarge,
    UnsupportedMediaType,
    Unprocessable,
    Overloaded,
    InternalError,
    ExpertUnavailable,
    DeadlineExceeded,
)
_BY_CODE = {kind.code: kind for kind in SERVED}
_BY_TYPE = {kind.type: kind for kind in reversed(SERVED)}
_BY_STATUS = {502: ExpertUnavailable} | {kind.status: kind for kind in reversed(SERVED)}


def to_body(error: CollegiumError) -> ErrorBody:
    """Write an error as OpenAI's error object.

    Also takes the twin that Ray raises in place of an error: its `cause` is the error itself.
    """
    cause = getattr(error, "cause", None)
    own = cause if isinstance(cause, CollegiumError) else error
    detail = ErrorDetail(message=own.message, type=own.type, param=own.param, code=own.code)
    return ErrorBody(error=detail)


def from_detail(detail: ErrorDetail, status: int | None = None) -> CollegiumError:
    """Read an error object back; an event of a stream comes without a status."""
    kind = _BY_CODE.get(detail.code or "") or _kind(detail.type, status)
    error = kind(detail.message, param=detail.param, code=detail.code)
    if detail.type is not None:
        error.type = detail.type
    if status is not None:
        error.status = status
    return error


def _kind(name: str | None, status: int | None) -> type[CollegiumError]:
    if status is None:
        return _BY_TYPE.get(name or "", InternalError)
    fallback = InvalidRequest if 400 <= status < 500 else InternalError
    return _BY_STATUS.get(status, fallback)


def from_response(status: int, body: bytes | str, headers: Mapping[str, str]) -> CollegiumError:
    """Read the error out of a response that is not a success, whoever wrote it.

    A body that holds no error object (a proxy's page, say) is quoted. `Retry-After` is read in both
    of its forms, https://www.rfc-editor.org/rfc/rfc9110#field.retry-after.
    """
    try:
        detail = ErrorBody.model_validate_json(body).error
    except ValidationError:
        text = body if isinstance(body, str) else body.decode("utf-8", "replace")
        detail = ErrorDetail(message=f"The server answered {status}: {shown(text.strip())}")
    error = from_detail(detail, status)
    error.retry_after = _retry_after(headers)
    return error


def _retry_after(headers: Mapping[str, str]) -> float | None:
    value = {key.lower(): text for key, text in headers.items()}.get("retry-after", "").strip()
    if re.fullmatch(r"\d+(\.\d+)?", value):
        return float(value)
    try:
        when = parsedate_to_datetime(value)
    except ValueError:
        return None
    aware = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max(0.0, (aware - datetime.now(UTC)).total_seconds())


def from_validation(problems: ValidationError | Sequence[Problem]) -> InvalidRequest:
    """Turn pydantic's list of problems (or FastAPI's, with its leading "body") into one error.

    The first problem is told in full: where, what is asked for, what was sent; others are named.
    """
    found = problems.errors() if isinstance(problems, ValidationError) else problems
    first, *others = [(path(problem), problem) for problem in found]
    param, problem = first
    message = sentence(problem)
    names = list(dict.fromkeys(f"`{name}`" for name, _ in others if name not in (None, param)))
    if names:
        more = ", ".join(names[:_MAX_NAMED]) + (" and others" if len(names) > _MAX_NAMED else "")
        message += f" Also at fault: {more}."
    return InvalidRequest(message, param=param)
