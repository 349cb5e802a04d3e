"""What a caller's `filter` asks of documents, as the Retriever searches by it."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.errors import InvalidRequest
from retrieval.errors import InvalidQuery
from retrieval.filters import Condition, condition


def asked_condition(filter: Mapping[str, object] | None, param: str) -> Condition:
    """Return the condition of a filter (see `retrieval.filters`); None lets everything through.

    Raises `InvalidRequest` naming `param`, where the caller wrote the filter.
    """
    try:
        return condition(filter)
    except InvalidQuery as error:
        raise InvalidRequest(str(error), param=param) from error
