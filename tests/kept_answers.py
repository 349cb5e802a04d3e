"""A service with a cache, and what is asked of it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

from in_process import REVERSED, Service, configuration, gathered

from orchestrator.answer_cache import AnswerCache
from orchestrator.answer_event import Finish
from orchestrator.config import Config
from orchestrator.identity import EVERYONE, Principal
from orchestrator.metrics import Metrics
from orchestrator.pipeline import Pipeline
from orchestrator.wire import RoutedCache

ALICE, BOB = replace(EVERYONE, tenant="alice"), replace(EVERYONE, tenant="bob")
SEMANTIC = {"enabled": True, "learn_from": 1, "max_error": 0.4, "audit": 0.01}


def configured(encoder: Path, folder: Path, **cache: Any) -> Config:  # noqa: ANN401
    settings = {"exact": True, "directory": str(folder / "answers"), **cache}
    return configuration(encoder, folder / "collections", cache=settings)


def cached(service: Service, **ports: Any) -> Pipeline:  # noqa: ANN401
    pipeline = service.pipeline(**ports)
    pipeline.cache = AnswerCache.of(service.config, service.retriever, Metrics())
    return pipeline


def ask(
    service: Service,
    pipeline: Pipeline,
    prompt: str = REVERSED,
    who: Principal = ALICE,
    **body: Any,  # noqa: ANN401
) -> tuple[str, Finish]:
    return asyncio.run(gathered(pipeline, service.task(prompt, who, **({"model": "code"} | body))))


def seen(finish: Finish) -> RoutedCache:
    assert finish.routing.cache is not None
    return finish.routing.cache
