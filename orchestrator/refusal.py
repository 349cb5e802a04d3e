"""Refusals: every error as a response in OpenAI's shape."""

from __future__ import annotations

import json
import logging
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from orchestrator.errors import (
    CollegiumError,
    DeadlineExceeded,
    InternalError,
    InvalidRequest,
    NotFound,
    from_validation,
    to_body,
)
from orchestrator.presence import CallerGone

logger = logging.getLogger(__name__)

_GONE = 499


def install(app: FastAPI) -> None:
    """Make the application answer every error in OpenAI's shape."""
    app.add_exception_handler(RequestValidationError, _on_validation)
    app.add_exception_handler(CollegiumError, _on_error)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(CallerGone, _on_gone)
    app.add_exception_handler(Exception, _on_fault)


def _response(error: CollegiumError) -> Response:
    headers = {}
    if error.retry_after is not None:
        headers["retry-after"] = str(max(1, round(error.retry_after)))
    if isinstance(error, DeadlineExceeded):
        # OpenAI's SDK tries every 5xx again, and would run past the deadline three times.
        headers["x-should-retry"] = "false"
    # Escaped to ASCII: a message may quote what was sent, lone surrogates included.
    body = json.dumps(to_body(error).model_dump())
    return Response(body, error.status, headers, "application/json")


async def _on_error(_http: Request, error: Exception) -> Response:
    own = error if isinstance(error, CollegiumError) else InternalError(str(error))
    return _response(own)


async def _on_validation(_http: Request, error: Exception) -> Response:
    problems = error.errors() if isinstance(error, RequestValidationError) else []
    return _response(from_validation(problems))


async def _on_http(http: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    if status == HTTPStatus.NOT_FOUND:
        own: CollegiumError = NotFound(f"There is nothing at {http.url.path}.", code="not_found")
    elif status == HTTPStatus.METHOD_NOT_ALLOWED:
        own = InvalidRequest(
            f"{http.method} is not allowed at {http.url.path}.", code="method_not_allowed"
        )
    else:
        own = InvalidRequest("The body is not valid JSON: it cannot be read as UTF-8 text.")
    own.status = status
    response = _response(own)
    response.headers.update(getattr(error, "headers", None) or {})
    return response


async def _on_gone(_http: Request, _error: Exception) -> Response:
    return Response(status_code=_GONE)


async def _on_fault(_http: Request, error: Exception) -> Response:
    logger.error("a request failed", exc_info=error)
    return _response(InternalError("The service failed; its log says why."))
