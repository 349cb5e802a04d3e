"""Presence: work for a caller stops when the caller goes away.

A server tells the application of a closed connection, and does not cancel it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from starlette.requests import Request

_Result = TypeVar("_Result")


class CallerGone(Exception):
    """The connection was closed before there was anything to send."""


async def while_present(http: Request, work: Awaitable[_Result]) -> _Result:
    """The result of `work`, which is cancelled when the caller closes the connection.

    The request's body must have been read.

    Raises:
        CallerGone: it was closed.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_left(http))
    try:
        await asyncio.wait([working, leaving], return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            leaving.result()
            raise CallerGone
        return working.result()
    finally:
        leaving.cancel()
        working.cancel()
        # Awaited, so that an expert's stream is closed before the request is over.
        await asyncio.wait([working, leaving])


async def _left(http: Request) -> None:
    while (await http.receive())["type"] != "http.disconnect":
        continue
