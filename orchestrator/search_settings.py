"""How the collections are searched, from the configuration to the retrieval room's own words."""

from __future__ import annotations

from orchestrator.config import RetrievalConfig
from retrieval.fusion import Fusion
from retrieval.search_settings import SearchSettings


def search_settings(config: RetrievalConfig) -> SearchSettings:
    """The settings of every search, and of joining what it found."""
    return SearchSettings(
        fusion=Fusion(config.fusion),
        dense_weight=config.dense_weight,
        candidates=config.candidates,
        relevance=1.0 - config.diversity,
    )
