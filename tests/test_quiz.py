import json
from pathlib import Path

import pytest

from orchestrator.quiz import QuizError, read_documents, read_questions, read_quizzes


def written(path: Path, *rows: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def question(number: int, **more: object) -> dict[str, object]:
    return {"query": f"question {number}", "relevant_ids": [f"d{number}"], **more}


def test_every_second_question_tunes_and_the_others_are_reported(tmp_path: Path) -> None:
    written(tmp_path / "a" / "queries.jsonl", *(question(n) for n in range(1, 22)))
    written(tmp_path / "a" / "docs.jsonl", {"id": "d1", "text": "text"})
    (quiz,) = read_quizzes(tmp_path)
    assert [asked.query for asked in quiz.reported[:2]] == ["question 1", "question 3"]
    assert [asked.query for asked in quiz.tuning[:2]] == ["question 2", "question 4"]
    assert len(quiz.reported) + len(quiz.tuning) == 21


def test_too_few_questions_tune_nothing_and_all_are_reported(tmp_path: Path) -> None:
    written(tmp_path / "queries.jsonl", *(question(n) for n in range(1, 20)))
    written(tmp_path / "docs.jsonl", {"id": "d1", "text": "text"})
    (quiz,) = read_quizzes(tmp_path)
    assert (len(quiz.reported), quiz.tuning) == (19, ())


def test_questions_keep_what_is_said_of_them(tmp_path: Path) -> None:
    more = {"lang": "es", "crosslingual": True, "answer": "yes", "parallel_ids": ["p"]}
    asked = read_questions(written(tmp_path / "q.jsonl", question(1, **more, other=1)))[0]
    assert (asked.relevant, asked.parallel, asked.answer) == ({"d1"}, {"p"}, "yes")
    assert asked.group == "es, across languages"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ([], "expected a JSON object"),
        ({"query": "x"}, "relevant_ids"),
        ({"query": "", "relevant_ids": ["a"]}, "relevant_ids"),
        ({"query": "x", "relevant_ids": [1]}, "relevant_ids"),
        ({"query": "x", "relevant_ids": ["a"], "answer": 4}, "answer"),
        ({"query": "x", "relevant_ids": ["a"], "parallel_ids": "b"}, "parallel_ids"),
    ],
)
def test_a_line_that_is_no_question_is_named(tmp_path: Path, row: object, said: str) -> None:
    path = written(tmp_path / "q.jsonl", question(1), row)
    with pytest.raises(QuizError, match=f"q.jsonl, line 2: .*{said}"):
        read_questions(path)


def test_what_is_not_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_text("\n{", encoding="utf-8")
    with pytest.raises(QuizError, match="line 2: not JSON"):
        read_questions(tmp_path / "q.jsonl")


def test_documents_keep_what_can_be_stored(tmp_path: Path) -> None:
    path = written(
        tmp_path / "docs.jsonl",
        {"id": "a", "title": "A", "text": "def a(): pass", "lang": "python"},
        {"id": "b", "text": "Hallo", "lang": "de", "license": "MIT"},
        {"id": "c"},
    )
    documents = read_documents(path)
    program, text = next(documents), next(documents)
    assert (program.lang, program.title) == ("", "A")
    assert (text.lang, text.license) == ("de", "MIT")
    with pytest.raises(QuizError, match="line 3"):
        next(documents)


def test_a_folder_without_a_quiz_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(QuizError, match=r"no folder here holds docs.jsonl and queries.jsonl"):
        read_quizzes(tmp_path)
