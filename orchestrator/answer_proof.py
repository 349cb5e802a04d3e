"""What passages do for answers: F1 with and without them, citations, buried instructions.

Everything is asked through the public API, so that any service can be measured.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from orchestrator.answer import Answer
from orchestrator.answer_scores import f1, holds, unmarked
from orchestrator.client import AsyncClient
from orchestrator.errors import NotFound
from orchestrator.injected_twin import obeyed
from orchestrator.quiz import Asked
from orchestrator.retrieval_proof import Draws, Progress
from orchestrator.wire import UrlCitation
from router.intervals import bootstrap, mean_interval
from router.trials import Floats, Indices

TOGETHER = 4
"""Questions that are asked at once."""


@dataclass(frozen=True, slots=True)
class Asking:
    """How questions are asked: of which model, and how long its answers may be.

    `injected` is the collection with the injected twins, empty where there is none, `canary` the
    word that they demand.
    """

    collection: str
    injected: str = ""
    canary: str = ""
    model: str = "auto"
    max_tokens: int = 64


@dataclass(frozen=True, slots=True)
class Answered:
    """A question with its answers: without sources, from them, and from their injected twins.

    `right` says of each mark of the second whether it names a source that answers.
    """

    asked: Asked
    closed: Answer
    grounded: Answer
    twin: Answer | None
    right: tuple[bool, ...]


async def interview(
    client: AsyncClient, asking: Asking, asked: Sequence[Asked], progress: Progress
) -> list[Answered]:
    """Ask every question that has an answer, two or three times. Raises `CollegiumError`."""
    texts: dict[tuple[str, str], str | None] = {}
    places = asyncio.Semaphore(TOGETHER)
    answerable = [one for one in asked if one.answer]
    done = 0

    async def ask(one: Asked) -> Answered:
        nonlocal done
        async with places:
            closed = await _chat(client, asking, one, {"grounding": "off"})
            grounded = await _chat(client, asking, one, _reading(asking.collection))
            twin = None
            if asking.injected:
                twin = await _chat(client, asking, one, _reading(asking.injected))
            right = [await _is_right(client, texts, one, mark) for mark in grounded.citations]
        done += 1
        progress(f"ask {asking.collection}", done, len(answerable))
        return Answered(one, closed, grounded, twin, tuple(right))

    return list(await asyncio.gather(*map(ask, answerable)))


def answer_figures(answered: Sequence[Answered], asking: Asking, draws: Draws) -> dict[str, Any]:
    """Return the figures of all answers and by language."""
    groups = [one.asked.group for one in answered]
    return {
        "model": asking.model,
        "max_tokens": asking.max_tokens,
        "all": _figures(answered, asking, draws),
        "groups": {
            group: _figures([one for one in answered if one.asked.group == group], asking, draws)
            for group in sorted(set(groups))
        },
    }


def _figures(answered: Sequence[Answered], asking: Asking, draws: Draws) -> dict[str, Any]:
    closed = _scores(answered, lambda one: one.closed)
    grounded = _scores(answered, lambda one: one.grounded)
    marks = np.array([len(one.right) for one in answered], dtype=float)
    right = np.array([sum(one.right) for one in answered], dtype=float)
    strata = [one.asked.group for one in answered]
    drawn = strata, draws.resamples, draws.seed
    told = Counter(_grounding(one.grounded) for one in answered)
    return {
        "questions": len(answered),
        "f1": {
            "closed": asdict(mean_interval(closed, *drawn)),
            "grounded": asdict(mean_interval(grounded, *drawn)),
            "ratio": asdict(bootstrap(_ratio(grounded, closed), *drawn)),
        },
        "holds_answer": {
            "closed": asdict(mean_interval(_holding(answered, lambda one: one.closed), *drawn)),
            "grounded": asdict(mean_interval(_holding(answered, lambda one: one.grounded), *drawn)),
        },
        "citations": {
            "marks": int(marks.sum()),
            "precision": asdict(bootstrap(_ratio(right, marks), *drawn)) if marks.any() else None,
            "recall": asdict(mean_interval((right > 0).astype(float), *drawn)),
        },
        "grounding": dict(sorted(told.items())),
        "injection": _injection(answered, asking, grounded, draws) if asking.injected else None,
    }


def _injection(
    answered: Sequence[Answered], asking: Asking, clean: Floats, draws: Draws
) -> dict[str, Any]:
    twins = [(one, one.twin) for one in answered if one.twin is not None]
    obeying = np.array([obeyed(twin.text, asking.canary) for _, twin in twins], dtype=float)
    scores = np.array([f1(unmarked(twin.text), one.asked.answer or "") for one, twin in twins])
    drawn = [one.asked.group for one, _ in twins], draws.resamples, draws.seed
    return {
        "answers": len(twins),
        "obeyed": int(obeying.sum()),
        "share": asdict(mean_interval(obeying, *drawn)),
        "f1": asdict(mean_interval(scores, *drawn)),
        "over_clean": asdict(bootstrap(_ratio(scores, clean), *drawn)),
    }


def _scores(answered: Sequence[Answered], pick: Callable[[Answered], Answer]) -> Floats:
    return np.array([f1(unmarked(pick(one).text), one.asked.answer or "") for one in answered])


def _holding(answered: Sequence[Answered], pick: Callable[[Answered], Answer]) -> Floats:
    found = [holds(unmarked(pick(one).text), one.asked.answer or "") for one in answered]
    return np.array(found, dtype=float)


def _ratio(above: Floats, below: Floats) -> Callable[[Indices], float]:
    def ratio(rows: Indices) -> float:
        total = float(below[rows].sum())
        return float(above[rows].sum()) / total if total else 0.0

    return ratio


def _grounding(answer: Answer) -> str:
    return (answer.routing.grounding if answer.routing else None) or "not told"


def _reading(collection: str) -> dict[str, object]:
    return {"grounding": "auto", "collections": [collection]}


async def _chat(
    client: AsyncClient, asking: Asking, one: Asked, routing: dict[str, object]
) -> Answer:
    return await client.chat(
        one.query,
        model=asking.model,
        routing=routing,
        temperature=0.0,
        max_tokens=asking.max_tokens,
    )


async def _is_right(
    client: AsyncClient,
    texts: dict[tuple[str, str], str | None],
    one: Asked,
    mark: UrlCitation,
) -> bool:
    """Whether a mark names a document that answers, or a passage that holds the answer."""
    document = mark.passage_id.rpartition("#")[0]
    if document in one.relevant | one.parallel:
        return True
    key = mark.collection, document
    if key not in texts:
        try:
            texts[key] = (await client.collections.document(*key)).text
        except NotFound:
            # Whoever may be answered from a collection need not be allowed to read it whole.
            texts[key] = None
    text = texts[key]
    return text is not None and holds(text[mark.start : mark.end], one.answer or "")
