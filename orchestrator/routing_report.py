"""The object `x_routing`: a decision, how it was carried out, and why."""

from __future__ import annotations

from typing import Literal

from orchestrator.response import OMITTED, Response


class RoutedExpert(Response):
    """One candidate: `probability` is the gate's, calibrated; `weight` its share of the answer."""

    name: str
    weight: float
    probability: float


class RoutedOthers(Response):
    """The candidates that are not listed: how many, and what they hold together."""

    count: int
    probability: float


class RoutedEvidence(Response):
    """What a search found for an expert, and its probability `before` and `after` that counted.

    `similarity` is the best cosine of any passage in the collection.
    """

    expert: str
    collection: str
    similarity: float
    before: float
    after: float


class RoutedSupport(Response):
    """How far the sources carry the answer.

    Of `sentences` that could be checked, so many are `supported`. `withheld` sentences of the
    sources give orders to the model, and were not shown to it.
    """

    sources: int
    sentences: int
    supported: int
    withheld: int


class RoutedCache(Response):
    """How the cache answered: `kind` is exact, semantic or miss.

    `similarity` is the cosine of the nearest earlier question, left out where none was compared,
    and `risk` the probability that its answer is another one. `saved_tokens` were not computed.
    """

    kind: Literal["exact", "semantic", "miss"]
    similarity: float | None = OMITTED
    risk: float | None = OMITTED
    saved_tokens: int = 0


class RoutingReport(Response):
    """The object `x_routing`: the decision and how it was carried out.

    `experts` are the chosen (weights sum to 1), `candidates` all, generalist included
    (probabilities sum to 1); of many, those that are not listed stand together in `others`.
    `evidence` is what a search had to do with it, left out where nothing.
    `method` tells how a mixture was computed, None where nothing was generated. `timings_ms` are
    milliseconds by step. `stage` tells who decided, `explored` that chance chose, `propensity` how
    likely it was that just these experts would act. `cache` is left out where it was not asked.
    """

    decision_id: str
    router_version: str
    mode: str
    reason: str
    fallback: bool
    experts: list[RoutedExpert]
    candidates: list[RoutedExpert]
    others: RoutedOthers | None = OMITTED
    evidence: list[RoutedEvidence] | None = OMITTED
    stage: str = "gate"
    explored: bool = False
    propensity: float = 1.0
    k: int
    method: str | None = None
    weighting: str | None = None
    grounding: str | None = None
    support: RoutedSupport | None = OMITTED
    cache: RoutedCache | None = OMITTED
    timings_ms: dict[str, float] = {}
