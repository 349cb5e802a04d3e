"""The answer cache in a running service: what is given again, to whom, and when no more."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from in_process import REVERSED, Service, gathered
from kept_answers import ALICE, BOB, SEMANTIC, ask, cached, configured, seen

from experts.echo import EchoExpert
from experts.generation import Busy, Chunk, FinishReason, Generation, Usage
from orchestrator.answer_cache import AnswerCache
from orchestrator.answer_store import FILE
from orchestrator.decision_log import FILE as FILE_OF_LOG
from orchestrator.decision_log import read_log
from orchestrator.errors import CollegiumError, NotFound
from orchestrator.metrics import Metrics
from orchestrator.recorder import Recorder
from retrieval.document import Document
from retrieval.index import Index

pytest_plugins = ["kept_fixtures"]
pytestmark = pytest.mark.models


def test_the_same_question_gets_the_same_answer_with_its_citations(kept: Service) -> None:
    expert = EchoExpert("code")
    pipeline = cached(kept, code=expert)
    first_text, first = ask(kept, pipeline)
    text, finish = ask(kept, pipeline, f"  {REVERSED}\r\n")
    assert text == first_text
    assert first.citations and finish.citations == first.citations
    assert [text[c.start_index : c.end_index] for c in finish.citations] == ["[1]"]
    assert (seen(first).kind, seen(finish).kind) == ("miss", "exact")
    spent = first.usage.prompt_tokens + first.usage.completion_tokens
    assert seen(finish).saved_tokens == spent
    assert finish.routing.grounding == first.routing.grounding
    assert finish.routing.decision_id != first.routing.decision_id
    assert len(expert.requests) == 1


def test_the_log_of_decisions_tells_what_a_kept_answer_stands_on(
    kept: Service, tmp_path: Path
) -> None:
    recorder = Recorder(kept.config, Metrics(), tmp_path / "log" / "decisions.sqlite")
    pipeline = cached(kept, recorder=recorder)
    for store in (True, True, False):
        _, finish = ask(kept, pipeline, store=store)
    recorder.close()
    made, again, unkept = (row.provenance for row in read_log(tmp_path / "log" / FILE_OF_LOG))
    assert made is not None and again is not None and unkept is not None
    assert (made.cache, again.cache, unkept.cache) == ("", "exact", "exact")
    assert (again.grounding, again.supported) == (made.grounding, made.supported)
    (cited,) = finish.citations
    assert [(s.passage_id, s.sha256, s.start, s.end) for s in again.sources] == [
        (cited.passage_id, cited.sha256, cited.start, cited.end)
    ]
    assert {s.passage_id for s in again.sources} <= {s.passage_id for s in made.sources}
    assert unkept.sources == ()


def test_a_kept_answer_to_an_abstention_is_logged_as_no_stand_in(
    kept: Service, tmp_path: Path
) -> None:
    recorder = Recorder(kept.config, Metrics(), tmp_path / "log" / "decisions.sqlite")
    pipeline = cached(kept, recorder=recorder)
    asked: dict[str, Any] = {"model": "auto", "routing": {"min_confidence": 1.0}}
    kinds = [seen(finish).kind for _, finish in (ask(kept, pipeline, **asked) for _ in range(2))]
    recorder.close()
    rows = list(read_log(tmp_path / "log" / FILE_OF_LOG))
    assert kinds == ["miss", "exact"]
    assert [(row.abstained, row.stood_in) for row in rows] == [(True, False)] * 2


def test_no_other_tenant_gets_it(kept: Service) -> None:
    pipeline = cached(kept)
    ask(kept, pipeline)
    _, finish = ask(kept, pipeline, who=BOB)
    assert seen(finish).kind == "miss"


@pytest.mark.parametrize(
    "other",
    [
        {"max_tokens": 5},
        {"seed": 3},
        {"stop": "x"},
        {"top_p": 0.5},
        {"model": "general"},
        {"model": "code+legal"},
        {"routing": {"grounding": "off"}},
        {"routing": {"collections": ["statutes"]}},
        {"routing": {"filter": {"lang": "de"}}},
        {
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "x"},
            ]
        },
    ],
)
def test_what_changes_the_answer_changes_the_key(kept: Service, other: dict[str, Any]) -> None:
    pipeline = cached(kept)
    ask(kept, pipeline)
    _, finish = ask(kept, pipeline, **other)
    assert seen(finish).kind == "miss"


def test_it_is_given_again_after_a_restart(kept: Service) -> None:
    ask(kept, cached(kept))
    _, finish = ask(kept, cached(kept))
    assert seen(finish).kind == "exact"


def test_a_document_more_invalidates_and_taking_it_out_restores(kept: Service) -> None:
    pipeline = cached(kept)
    ask(kept, pipeline)
    index = Index(
        Path(str(kept.config.retrieval.directory)),
        lambda texts: asyncio.run(kept.retriever.embed(texts)),
    )
    index.add("snippets", [Document("new", "new()", "Nothing of the kind.")])
    assert seen(ask(kept, pipeline)[1]).kind == "miss"
    index.remove("snippets", "new")
    assert seen(ask(kept, pipeline)[1]).kind == "exact"


async def test_an_answer_is_not_kept_under_what_it_was_not_made_from(kept: Service) -> None:
    pipeline = cached(kept)
    index = Index(
        Path(str(kept.config.retrieval.directory)),
        lambda texts: asyncio.run(kept.retriever.embed(texts)),
    )
    events = pipeline.answer(kept.task(REVERSED, ALICE, model="code"), ())
    async with aclosing(events):
        await anext(events)
        await asyncio.to_thread(index.add, "snippets", [Document("new", "new()", "Nothing.")])
        async for _ in events:
            pass
    assert rows(kept) == 0
    _, finish = await gathered(pipeline, kept.task(REVERSED, ALICE, model="code"))
    assert seen(finish).kind == "miss"


def test_a_kept_answer_hides_no_missing_collection(kept: Service) -> None:
    pipeline = cached(kept)
    ask(kept, pipeline, routing={"collections": ["snippets"]})
    with pytest.raises(NotFound, match="no collection 'absent'"):
        ask(kept, pipeline, routing={"collections": ["snippets", "absent"]})


def test_without_its_vector_a_question_is_compared_with_none(
    encoder_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def busy(_texts: Sequence[str]) -> npt.NDArray[np.float32]:
        raise Busy("the Retriever has too much to do")

    service = Service.open(configured(encoder_dir, tmp_path, exact=False, semantic=SEMANTIC))
    monkeypatch.setattr(service.retriever, "embed", busy)
    text, finish = ask(service, cached(service), model="general", routing={"grounding": "off"})
    assert text and seen(finish).kind == "miss"


def test_a_drawn_answer_is_not_kept_unless_a_seed_fixes_it(kept: Service) -> None:
    pipeline = cached(kept)
    drawn = [ask(kept, pipeline, temperature=1.0)[1].routing.cache for _ in range(2)]
    assert drawn == [None, None]
    fixed = [seen(ask(kept, pipeline, temperature=1.0, seed=7)[1]).kind for _ in range(2)]
    assert fixed == ["miss", "exact"]


def test_a_request_may_skip_or_refresh(kept: Service) -> None:
    pipeline = cached(kept)
    ask(kept, pipeline)
    assert ask(kept, pipeline, routing={"cache": "skip"})[1].routing.cache is None
    assert seen(ask(kept, pipeline, routing={"cache": "refresh"})[1]).kind == "miss"
    assert seen(ask(kept, pipeline, routing={"cache": "use"})[1]).kind == "exact"


def test_what_is_not_to_be_stored_is_not_kept(kept: Service) -> None:
    pipeline = cached(kept)
    ask(kept, pipeline, store=False)
    assert seen(ask(kept, pipeline)[1]).kind == "miss"


def test_a_stand_in_and_a_torn_answer_are_not_kept(kept: Service) -> None:
    pipeline = cached(kept)
    for _ in range(2):
        _, finish = ask(kept, pipeline, model="broken")
        assert finish.routing.fallback
        assert seen(finish).kind == "miss"
        with pytest.raises(CollegiumError):
            ask(kept, pipeline, model="torn")
    assert rows(kept) == 0


async def test_a_cancelled_stream_is_not_kept(kept: Service) -> None:
    pipeline = cached(kept)
    events = pipeline.answer(kept.task(REVERSED, ALICE, model="code"), ())
    await anext(events)
    await events.aclose()
    _, finish = await gathered(pipeline, kept.task(REVERSED, ALICE, model="code"))
    assert seen(finish).kind == "miss"


def test_a_broken_file_costs_hits_and_no_answer(kept: Service) -> None:
    folder = Path(str(kept.config.cache.directory))
    folder.mkdir(parents=True)
    (folder / FILE).write_bytes(b"this is no database, whatever its name says" * 200)
    pipeline = cached(kept)
    for _ in range(2):
        text, finish = ask(kept, pipeline)
        assert text.startswith("The Python function reversed")
        assert seen(finish).kind == "miss"


def rows(service: Service) -> int:
    path = Path(str(service.config.cache.directory)) / FILE
    if not path.exists():
        return 0
    (count,) = sqlite3.connect(path).execute("SELECT count(*) FROM answers").fetchone()
    return int(count)


class Oracle(EchoExpert):
    """Answers by what the question is about."""

    async def generate(self, request: Generation) -> AsyncGenerator[Chunk, None]:
        self.requests.append(request)
        said = request.messages[-1][1].lower()
        text = "Press the red button." if "password" in said else f"It is about {said}."
        yield Chunk(text)
        yield Chunk("", finish_reason=FinishReason.STOP, usage=Usage(9, 4))


FORMS = [
    "How do I reset my {}?",
    "How can I reset my {}?",
    "How do I reset the {} of mine?",
    "What do I do to reset my {}?",
    "Please tell me how to reset my {}.",
    "How does one reset a {}?",
    "I want to reset my {}, how?",
]

THINGS = (
    "phone router watch camera printer radio clock boiler fridge car bicycle drone tablet keyboard "
    "monitor scanner thermostat alarm doorbell speaker"
).split()


def test_a_question_in_other_words_is_served_once_that_was_learnt(
    encoder_dir: Path, tmp_path: Path
) -> None:
    config = configured(encoder_dir, tmp_path, exact=False, semantic=SEMANTIC)
    service, expert = Service.open(config), Oracle("general")
    pipeline = service.pipeline(general=expert)
    pipeline.cache = AnswerCache(service.config, service.retriever, Metrics(), lambda: 1.0)
    fixed = {"model": "general", "routing": {"grounding": "off"}}
    served = []
    for number in range(240):
        about = "password" if number % 4 < 3 else THINGS[number // 4 % len(THINGS)]
        prompt = FORMS[number % len(FORMS)].format(about) + "!" * (number // len(FORMS))
        text, finish = ask(service, pipeline, prompt, **fixed)
        if seen(finish).kind == "semantic":
            served.append((number, text, about, seen(finish)))
    assert min(number for number, *_ in served) >= 100
    assert len(expert.requests) == 240 - len(served)
    passwords = [cache for _, text, about, cache in served if about == "password"]
    assert len(passwords) >= 20
    assert all(0.4 <= (c.similarity or 0.0) and 0.0 < (c.risk or 0.0) <= 0.5 for c in passwords)
    wrong = [text for _, text, about, _ in served if about not in text and about != "password"]
    assert len(wrong) <= 0.4 * 240
    # Other numbers, another caller, and a second turn are never served by likeness.
    _, numbered = ask(service, pipeline, "How do I reset my 2 passwords?", **fixed)
    assert seen(numbered).kind == "miss"
    _, foreign = ask(service, pipeline, "How could I reset my password?", BOB, **fixed)
    assert seen(foreign).kind == "miss"
    turns = [
        {"role": "user", "content": "Hello."},
        {"role": "assistant", "content": "Hello!"},
        {"role": "user", "content": "How could I reset my password?"},
    ]
    _, later = ask(service, pipeline, messages=turns, **fixed)
    assert seen(later).kind == "miss"
