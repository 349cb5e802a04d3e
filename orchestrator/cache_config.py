"""What the configuration says about the cache of answers."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from orchestrator.strict_model import StrictModel

_Positive = Annotated[int, Field(ge=1)]


class SemanticCacheConfig(StrictModel):
    """Answers to questions that mean the same.

    `max_error` is the share of requests that may get an answer which would not have been theirs.
    Earlier questions below the cosine `min_similarity` are not compared. `learn_from` is how many
    comparisons a tenant must have made before anything is served, `audit` the share of servable
    requests that are answered anew so that learning goes on.
    """

    enabled: bool = False
    max_error: Annotated[float, Field(gt=0, lt=0.5)] = 0.01
    min_similarity: Annotated[float, Field(ge=0, lt=1)] = 0.4
    learn_from: _Positive = 200
    audit: Annotated[float, Field(gt=0, lt=1)] = 0.05


class CacheConfig(StrictModel):
    """Answers that are kept and given again; off unless asked for.

    `directory` defaults to `$COLLEGIUM_HOME/answers`. `sampled` also keeps what was drawn at a
    temperature without a seed.
    """

    exact: bool = False
    semantic: SemanticCacheConfig = SemanticCacheConfig()
    sampled: bool = False
    directory: str | None = None
    max_entries: _Positive = 10_000
    max_bytes: _Positive = 134_217_728
    max_age_s: Annotated[float, Field(gt=0)] = 86_400.0

    @property
    def enabled(self) -> bool:
        """Whether anything is kept."""
        return self.exact or self.semantic.enabled
