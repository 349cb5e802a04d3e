"""The cache over HTTP: callers let go of what is kept for their tenant."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from fastapi import FastAPI, Request

from orchestrator.answer_cache import AnswerCache
from orchestrator.errors import InternalError, NotFound, PermissionDenied
from orchestrator.identity import Principal
from orchestrator.wire import CacheDeletion


class CacheDesk:
    """The endpoint `/v1/cache`; `principal` says who asks."""

    def __init__(
        self, cache: AnswerCache | None, principal: Callable[[Request], Principal]
    ) -> None:
        self._cache, self._principal = cache, principal

    def install(self, app: FastAPI) -> None:
        """Add the endpoint to an application."""
        app.add_api_route(
            "/v1/cache", self.delete, methods=["DELETE"], response_model=CacheDeletion
        )

    async def delete(self, http: Request) -> CacheDeletion:
        """Remove the kept answers of the caller's tenant, and what was learnt from them."""
        principal = self._principal(http)
        if self._cache is None:
            raise NotFound("This service keeps no answers.", code="cache_disabled")
        if principal.writable is not None and not principal.writable:
            raise PermissionDenied("This key may not change what is kept.")
        try:
            return CacheDeletion(answers=await self._cache.clear(principal.tenant))
        except (sqlite3.Error, OSError) as error:
            raise InternalError("The kept answers cannot be removed now.") from error
