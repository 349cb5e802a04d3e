"""`x_routing` of many experts: the most probable are listed, the others stand together."""

from __future__ import annotations

import json

import numpy as np
import pytest

from experts.generation import Sampling
from orchestrator.combination import Outcome, Team
from orchestrator.identity import EVERYONE
from orchestrator.report import MOST_CANDIDATES, describe, report
from orchestrator.request import Grounding, Mode, Weighting
from orchestrator.task import Task
from orchestrator.wire import RoutingReport
from router.chances import Chances
from router.decision import Decision
from router.overrides import Overrides
from router.ranking import Ranking

TASK = Task(
    id="chatcmpl-1",
    model="auto",
    messages=(("user", "Hello"),),
    sampling=Sampling(max_tokens=1),
    overrides=Overrides(),
    mode=None,
    weighting=Weighting.ROUTER,
    grounding=Grounding.OFF,
    collections=None,
    principal=EVERYONE,
)


def decision(experts: int) -> Decision:
    shares = np.random.default_rng(0).dirichlet([0.05] * experts)
    names = [f"expert {number}" for number in range(experts)]
    chances = Chances.of(dict(zip(names, shares.tolist(), strict=True)))
    lead = names[int(shares.argmax())]
    return Decision(
        candidates=Ranking(chances, {lead: 1.0}),
        chosen=(lead,),
        k=1,
        reason="",
        fallback=False,
        abstained=False,
        router_version="x",
        seconds=0.0,
        vector=np.zeros(2, dtype=np.float32),
    )


def told(found: Decision, spoke: str) -> RoutingReport:
    outcome = Outcome(Mode.SINGLE, spoke=((spoke, 1.0),))
    return report(TASK, found, Team(((spoke, 1.0),), Mode.SINGLE), outcome, None, {})


def test_few_candidates_are_all_listed_and_there_are_no_others() -> None:
    found = decision(MOST_CANDIDATES)
    told_of = told(found, found.chosen[0])
    assert len(told_of.candidates) == MOST_CANDIDATES and told_of.others is None
    assert "others" not in json.loads(told_of.model_dump_json())
    assert sum(c.probability for c in told_of.candidates) == pytest.approx(1.0)


def test_of_a_thousand_the_most_probable_are_listed_and_the_rest_is_counted() -> None:
    found = decision(1000)
    body = told(found, found.chosen[0])
    assert len(body.candidates) == MOST_CANDIDATES
    everyone = [candidate.probability for candidate in found.candidates]
    assert [c.probability for c in body.candidates] == everyone[:MOST_CANDIDATES]
    assert body.others is not None
    assert body.others.count == 1000 - MOST_CANDIDATES
    assert body.others.probability == pytest.approx(sum(everyone[MOST_CANDIDATES:]))


def test_whoever_speaks_is_listed_however_improbable() -> None:
    found = decision(1000)
    last = found.candidates[-1]
    body = told(found, last.name)
    assert body.candidates[-1].name == last.name and body.candidates[-1].weight == 1.0
    assert body.experts[0].probability == last.probability
    assert body.others is not None and body.others.count == 999 - MOST_CANDIDATES


def test_a_span_bears_no_more_than_the_report() -> None:
    attributes = describe(decision(1000))
    lists = ("candidates", "probabilities", "weights")
    sizes = {len(list(attributes[f"collegium.routing.{name}"])) for name in lists}  # type: ignore[arg-type]
    assert sizes == {MOST_CANDIDATES}
