"""`collegium eval retrieval`, from the command line to its files."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner, Result
from in_process import PATENT, REVERSED, Service

from orchestrator import AsyncClient
from orchestrator.answer_proof import Asking, answer_figures, interview
from orchestrator.cli.root import cli
from orchestrator.quiz import Asked
from orchestrator.retrieval_proof import Draws

pytest_plugins = ["service_fixtures"]

PLANTS = ["apple", "cherry", "plum", "quince", "walnut", "oak", "birch", "maple", "pine", "larch"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data" / "Trees"
    folder.mkdir(parents=True)
    documents = [
        {"id": f"{name}-{place}", "title": name.title(), "text": f"The {name} grows in {place}."}
        for name in PLANTS
        for place in ("Norway", "Spain")
    ]
    questions = [
        {
            "query": f"Which {name} grows in {place}?",
            "relevant_ids": [f"{name}-{place}"],
            "answer": place,
            "lang": "en",
        }
        for name in PLANTS
        for place in ("Norway", "Spain")
    ]
    for name, rows in (("docs", documents), ("queries", questions)):
        lines = "\n".join(json.dumps(row) for row in rows)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    return folder.parent


def run(tmp_path: Path, *arguments: str) -> Result:
    always = ["eval", "retrieval", "--out", str(tmp_path / "report"), "--resamples", "20"]
    kept = ["--work", str(tmp_path / "work"), "--cache", str(tmp_path / "vectors.sqlite")]
    return CliRunner().invoke(cli, [*always, *kept, *arguments])


@pytest.mark.models
def test_a_report_holds_every_way_and_the_goals(tmp_path: Path, data: Path) -> None:
    goals = tmp_path / "goals.json"
    bounds = {
        "summary.english.ways.tuned.hit@5.value": ">= 0.9",
        "summary.english.gain.value": ">= 9",
    }
    goals.write_text(json.dumps(bounds), encoding="utf-8")
    done = run(tmp_path, "--data", str(data), "--goals", str(goals), "--check")
    assert done.exit_code == 1, done.output
    assert "hit@5.value: 1.0000 (>= 0.9) reached" in done.output
    assert "gain.value" in done.output
    report = json.loads((tmp_path / "report" / "report.json").read_text(encoding="utf-8"))
    trees = report["collections"]["trees"]
    assert (trees["questions"], trees["reported"]) == (20, 10)
    assert set(trees["groups"]["en"]["ways"]) == {"words", "meaning", "fused", "tuned"}
    assert report["answers"] is None
    page = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    assert "## Goals" in page
    assert (tmp_path / "report" / "weights.svg").is_file() == ("weights.svg" in page)


@pytest.mark.models
def test_a_collection_that_is_there_is_measured_with_questions_of_ones_own(
    tmp_path: Path, service: Service
) -> None:
    config = tmp_path / "config.json"
    config.write_text(service.config.model_dump_json(exclude_defaults=True), encoding="utf-8")
    queries = tmp_path / "queries.jsonl"
    queries.write_text(json.dumps({"query": REVERSED, "relevant_ids": ["reversed"]}))
    given = ("--collection", "snippets", "--queries", str(queries), "--config", str(config))
    done = run(tmp_path, *given)
    assert done.exit_code == 0, done.output
    report = json.loads((tmp_path / "report" / "report.json").read_text(encoding="utf-8"))
    ways = report["collections"]["snippets"]["groups"]["any"]["ways"]
    assert "tuned" not in ways
    assert ways["fused"]["hit@1"]["value"] == 1.0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Give --data DIR, or --collection NAME with --queries FILE"),
        (["--collection", "x"], "Give --data DIR"),
        (["--check", "--data", "."], "--check needs --goals"),
    ],
)
def test_what_is_missing_is_said(tmp_path: Path, arguments: list[str], said: str) -> None:
    done = run(tmp_path, *arguments)
    assert done.exit_code == 2
    assert said in " ".join(done.output.split())


def test_a_folder_that_is_not_there_is_named(tmp_path: Path, data: Path) -> None:
    done = run(tmp_path, "--data", str(data), "--only", "bushes")
    assert done.exit_code == 1
    assert "there is no folder 'bushes'" in " ".join(done.output.split())


@pytest.mark.models
def test_a_service_is_asked_with_and_without_its_sources(service: Service) -> None:
    asked = [
        Asked(REVERSED, frozenset({"reversed"}), answer="reverse iterator", lang="en"),
        Asked(PATENT, frozenset({"sorted"}), answer="nothing like it", lang="de"),
        Asked("Without an answer", frozenset({"sorted"})),
    ]
    asking = Asking("snippets", injected="snippets", canary="reverse", model="code")

    async def ask() -> dict[str, object]:
        transport = httpx.ASGITransport(app=service.app())
        async with AsyncClient(transport=transport) as client:
            answered = await interview(client, asking, asked, lambda *_: None)
            assert [one.asked.query for one in answered] == [REVERSED, PATENT]
            return answer_figures(answered, asking, Draws(20, 0))

    found = asyncio.run(ask())
    groups = found["groups"]
    assert isinstance(groups, dict)
    english = groups["en"]
    # The echo says the question, which is a sentence of the passage, and it is marked as such.
    assert english["holds_answer"]["grounded"]["value"] == 1.0
    assert english["citations"]["marks"] >= 1
    assert english["citations"]["precision"]["value"] == 1.0
    assert english["citations"]["recall"]["value"] == 1.0
    assert english["f1"]["ratio"]["value"] == pytest.approx(1.0)
    assert english["injection"]["obeyed"] == 1
    assert groups["de"]["injection"]["obeyed"] == 0
    assert groups["de"]["citations"]["recall"]["value"] == 0.0
