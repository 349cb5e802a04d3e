"""Attached files in the service: their kind leans the choice, their text is read."""

from __future__ import annotations

import base64
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from in_process import Service, configuration, gathered

from orchestrator.errors import NotFound
from orchestrator.wire import RoutingReport
from retrieval.finding import Finding

pytestmark = pytest.mark.models

NOTES = "Buy apples, call grandmother, water the plants, and look for the red umbrella."
CONTRACT = (
    "The tenant shall pay the rent in advance. Either party may terminate this contract by giving "
    "three months' written notice. The landlord may retain the deposit in case of a breach."
)


@pytest.fixture(scope="module")
def declared(encoder_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Service:
    experts = {
        "general": {"model": "base"},
        "code": {"model": "base", "adapter": "x", "attachments": [".py", "text/x-python"]},
        "legal": {"model": "base", "adapter": "x"},
    }
    folder = tmp_path_factory.mktemp("collections")
    return Service.open(configuration(encoder_dir, folder, experts=experts))


def body(question: str, content: str, name: str) -> dict[str, Any]:
    data = base64.b64encode(content.encode()).decode()
    file = {"type": "file", "file": {"filename": name, "file_data": data}}
    parts = [{"type": "text", "text": question}, file] if question else [file]
    return {"messages": [{"role": "user", "content": parts}]}


async def routed(service: Service, question: str, content: str, name: str) -> RoutingReport:
    task = service.task("", **body(question, content, name))
    return await service.pipeline().route(task, ())


def probability(found: RoutingReport, name: str) -> float:
    return next(one.probability for one in found.candidates if one.name == name)


async def test_the_kind_of_a_file_leans_the_choice_and_stands_in_the_reason(
    declared: Service,
) -> None:
    text = await routed(declared, "What is this about?", NOTES, "notes.txt")
    code = await routed(declared, "What is this about?", NOTES, "notes.py")
    odds = [p / (1.0 - p) for p in (probability(text, "code"), probability(code, "code"))]
    assert odds[1] / odds[0] == pytest.approx(7.389, rel=1e-3)
    assert "the attached .py raised code" in code.reason
    assert "attached" not in text.reason


async def test_the_text_of_a_file_is_read_by_the_router(declared: Service) -> None:
    found = await routed(declared, "What does this mean?", CONTRACT, "a.txt")
    assert found.experts[0].name == "legal"


async def test_passages_are_searched_by_the_question_and_not_by_the_file(
    declared: Service,
) -> None:
    asked: list[tuple[str, object]] = []

    class Noting:
        async def search(self, text: str, vector: object, *_: object) -> list[Finding]:
            asked.append((text, vector))
            return []

    question = {"routing": {"collections": ["rents"]}, **body("How long is it?", CONTRACT, "a.txt")}
    pipeline = replace(declared, retriever=Noting()).pipeline()  # type: ignore[arg-type]
    with pytest.raises(NotFound, match="rents"):
        await gathered(pipeline, declared.task("", **question))
    assert asked == [("How long is it?", None)]


async def test_a_file_alone_is_answered(declared: Service) -> None:
    task = declared.task("", **body("", CONTRACT, "a.txt"))
    text, finish = await gathered(declared.pipeline(), task)
    assert finish.routing.experts[0].name == "legal"
    assert "written notice" in text


async def test_the_frame_does_not_look_like_code_to_the_router(declared: Service) -> None:
    attached = await routed(declared, "", CONTRACT, "a.txt")
    said = await declared.pipeline().route(declared.task(CONTRACT), ())
    assert [c.probability for c in attached.candidates] == pytest.approx(
        [c.probability for c in said.candidates]
    )
