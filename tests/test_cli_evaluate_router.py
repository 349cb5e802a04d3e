"""`collegium eval router`, from the command line to its files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from orchestrator.cli.root import cli

QUESTIONS = {
    "code": (
        "How do I sort a list of tuples by their second value in Python?",
        "Write a shell command that finds files larger than a gigabyte.",
        "Why does this for loop raise an index error at the end?",
        "What is the difference between a list and a tuple in Python?",
    ),
    "legal": (
        "Is a contract valid if one party signed it under duress?",
        "May a landlord keep the deposit when the tenant leaves early?",
        "Which licence lets me sell the software without its source?",
        "What does a clause on limited liability usually say?",
    ),
    "multilingual": (
        "¿Cómo cambio el idioma del teclado en mi ordenador?",
        "Wie stelle ich die Uhrzeit auf meinem Rechner ein?",
        "Comment puis-je installer une imprimante chez moi ?",
        "Как перенести фотографии с телефона на компьютер?",
    ),
    "general": (
        "What should I cook for six guests tonight?",
        "Tell me a short story about a lighthouse keeper.",
        "How many weeks should I train before a marathon?",
        "Which instruments play in a string quartet?",
    ),
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows = [
        {"id": f"q-en-{domain}-{n}", "prompt": text, "domain": domain, "lang": language(domain, n)}
        for domain, texts in QUESTIONS.items()
        for n, text in enumerate(texts)
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


def language(domain: str, number: int) -> str:
    return ("es", "de", "fr", "ru")[number] if domain == "multilingual" else "en"


@pytest.fixture
def losses(tmp_path: Path) -> Path:
    from router.losses import AnswerLoss, LossFile

    path = tmp_path / "losses.jsonl"
    file = LossFile(path, tuple(QUESTIONS), ("",) * 4)
    for domain, texts in QUESTIONS.items():
        for text in texts:
            file.add(text, AnswerLoss(tuple(1.0 if x == domain else 1.5 for x in QUESTIONS), 9))
    return path


def run(tmp_path: Path, *arguments: str) -> Result:
    always = ["eval", "router", "--out", str(tmp_path / "report")]
    quick = ["--resamples", "20", "--cache", str(tmp_path / "vectors.sqlite")]
    return CliRunner().invoke(cli, [*always, *quick, *arguments])


def goals(tmp_path: Path, **bounds: str) -> str:
    path = tmp_path / "goals.json"
    path.write_text(json.dumps(bounds), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "Missing option '--data'"),
        (("--data", "{data}", "--peers"), "--peers and --apart learn from --train"),
        (("--data", "{data}", "--apart"), "--peers and --apart learn from --train"),
        (("--data", "{data}", "--check"), "--check needs --goals"),
        (("--data", "nowhere.jsonl"), "does not exist"),
    ],
)
def test_a_wrong_call_is_explained(
    tmp_path: Path, data: Path, arguments: Sequence[str], said: str
) -> None:
    done = run(tmp_path, *(argument.format(data=data) for argument in arguments))
    assert done.exit_code == 2
    assert said in " ".join(done.output.replace("│", " ").split())
    assert not (tmp_path / "report").exists()


def test_goals_that_cannot_be_read_end_it_before_anything_is_encoded(
    tmp_path: Path, data: Path
) -> None:
    done = run(tmp_path, "--data", str(data), "--goals", goals(tmp_path, accuracy="high"))
    assert done.exit_code == 1
    assert "the bound of accuracy must be a string" in done.output
    assert not (tmp_path / "vectors.sqlite").exists()


def test_data_without_rows_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "empty.jsonl"
    path.write_text("\n", encoding="utf-8")
    done = run(tmp_path, "--data", str(path))
    assert done.exit_code == 1
    assert "no row to measure on" in done.output


@pytest.mark.models
def test_the_embedded_router_is_proved(tmp_path: Path, data: Path, losses: Path) -> None:
    options = ("--losses", str(losses), "--robust-rows", "1")
    done = run(tmp_path, "--data", str(data), *options)
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "report" / "report.json").read_text(encoding="utf-8"))
    assert found["data"]["rows"] == 16
    assert found["data"]["files"] == ["rows.jsonl"]
    assert found["accuracy"]["value"] >= 0.8
    assert found["regret"]["routers"]["uniform"]["macro"]["value"] == pytest.approx(0.375)
    assert len(found["robustness"]) == 11
    page = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    assert f"router `{found['router']['version']}`" in page
    assert "## Regret" in page


@pytest.mark.models
def test_a_missed_goal_ends_with_status_1_only_if_checked(tmp_path: Path, data: Path) -> None:
    always = ("--data", str(data), "--robust-rows", "0", "--goals")
    missed = goals(tmp_path, **{"accuracy.value": ">= 1.1", "calibration.ece": "<= 1"})
    shown = run(tmp_path, *always, missed)
    assert shown.exit_code == 0
    assert run(tmp_path, *always, missed, "--check").exit_code == 1
    assert "| `accuracy.value` |" in (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    kept = goals(tmp_path, **{"accuracy.value": ">= 0.5"})
    assert run(tmp_path, *always, kept, "--check").exit_code == 0
    unknown = goals(tmp_path, accurracy=">= 0.5")
    done = run(tmp_path, *always, unknown)
    assert done.exit_code == 1
    assert "no 'accurracy' in the report" in done.output


@pytest.mark.models
def test_a_label_that_is_no_expert_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "Is it contagious?", "domain": "medicine"}\n', encoding="utf-8")
    done = run(tmp_path, "--data", str(path))
    assert done.exit_code == 1
    assert "no label 'medicine' here" in done.output


@pytest.mark.models
def test_losses_of_other_experts_are_named(tmp_path: Path, data: Path, losses: Path) -> None:
    other = tmp_path / "other.jsonl"
    other.write_text('{"experts": ["a"], "marks": ["b"]}\n', encoding="utf-8")
    given = ("--losses", str(losses), "--losses", str(other))
    done = run(tmp_path, "--data", str(data), *given, "--robust-rows", "0")
    assert done.exit_code == 1
    assert "other.jsonl: holds losses of other experts" in " ".join(done.output.split())


@pytest.mark.models
def test_peers_and_a_gate_apart_learn_from_the_training_rows(tmp_path: Path, data: Path) -> None:
    pytest.importorskip("sklearn")
    lines = []
    for domain, texts in QUESTIONS.items():
        for text in texts:
            for n in range(8):
                row = {"prompt": f"{text} ({n})", "domain": domain, "lang": "en"}
                lines.append(json.dumps(row))
    train = tmp_path / "train.jsonl"
    train.write_text("\n".join(lines), encoding="utf-8")
    options = ("--train", str(train), "--peers", "--apart", "--robust-rows", "0")
    done = run(tmp_path, "--data", str(data), *options)
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "report" / "report.json").read_text(encoding="utf-8"))
    assert {"router", "k nearest neighbours", "logistic regression"} <= set(found["peers"])
    assert found["novelty"]["apart"]["outside"] == 4
    assert set(found["unseen_languages"]["by_language"]) == {"es", "de", "fr", "ru"}
