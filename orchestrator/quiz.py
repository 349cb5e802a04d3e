"""A quiz for collections: questions whose documents are known, and perhaps their answers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrieval.document import Document, is_language
from retrieval.tuning import LEAST, Labelled

QUESTIONS_FILE = "queries.jsonl"
DOCUMENTS_FILE = "docs.jsonl"


class QuizError(ValueError):
    """A quiz that cannot be read; the message names the file and line, and what is expected."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A question with the ids of the documents that answer it.

    `parallel` are documents that answer it too but are not looked for, such as translations;
    `across` says that it is not in the language of the documents. `number` counts the questions of
    a file from 1.
    """

    query: str
    relevant: frozenset[str]
    parallel: frozenset[str] = frozenset()
    answer: str | None = None
    lang: str = ""
    across: bool = False
    number: int = 1

    @property
    def labelled(self) -> Labelled:
        """The question as a search is tuned and measured by it."""
        return Labelled(self.query, self.relevant)

    @property
    def group(self) -> str:
        """The language that it is reported under."""
        language = self.lang or "any"
        return f"{language}, across languages" if self.across else language


@dataclass(frozen=True, slots=True)
class Quiz:
    """The questions on one collection, in the order of their lines."""

    collection: str
    asked: tuple[Asked, ...]
    documents: Path | None = None

    @property
    def tuning(self) -> tuple[Asked, ...]:
        """Every second question, for tuning; none where they are too few."""
        half = tuple(asked for asked in self.asked if asked.number % 2 == 0)
        return half if len(half) >= LEAST else ()

    @property
    def reported(self) -> tuple[Asked, ...]:
        """The questions that the figures are of: those that tuned nothing."""
        return (
            tuple(asked for asked in self.asked if asked.number % 2) if self.tuning else self.asked
        )


def read_quizzes(data: Path) -> tuple[Quiz, ...]:
    """Read every folder below `data`, or `data` itself, that holds documents and questions.

    Raises `QuizError`, `OSError`.
    """
    folders = [data] if (data / QUESTIONS_FILE).is_file() else sorted(data.iterdir())
    quizzes = tuple(
        Quiz(
            folder.name.lower(),
            read_questions(folder / QUESTIONS_FILE),
            folder / DOCUMENTS_FILE,
        )
        for folder in folders
        if (folder / QUESTIONS_FILE).is_file() and (folder / DOCUMENTS_FILE).is_file()
    )
    if not quizzes:
        raise QuizError(f"{data}: no folder here holds {DOCUMENTS_FILE} and {QUESTIONS_FILE}.")
    return quizzes


def read_questions(path: Path) -> tuple[Asked, ...]:
    """Read the questions of a JSON Lines file; further keys are ignored. Raises `QuizError`."""
    rows = enumerate(_rows(path), start=1)
    return tuple(_asked(where, row, number) for number, (where, row) in rows)


def read_documents(path: Path) -> Iterator[Document]:
    """Yield the documents of a JSON Lines file: `id`, `text`, optionally `title`, `lang`, …

    Raises `QuizError`, and `InvalidDocument` for one that cannot be stored.
    """
    for where, row in _rows(path):
        if not isinstance(row.get("id"), str) or not isinstance(row.get("text"), str):
            raise QuizError(f'{where}: expected {{"id": text, "text": text}}.')
        language = str(row.get("lang") or "")
        yield Document(
            row["id"],
            str(row.get("title") or ""),
            row["text"],
            str(row.get("url") or ""),
            str(row.get("license") or ""),
            str(row.get("source") or ""),
            lang=language if is_language(language) else "",
        )


def _rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise QuizError(f"{where}: not JSON: {error}") from error
        if not isinstance(row, dict):
            raise QuizError(f"{where}: expected a JSON object.")
        yield where, row


def _asked(where: str, row: Mapping[str, Any], number: int) -> Asked:
    query, answer = row.get("query"), row.get("answer")
    relevant, parallel = row.get("relevant_ids"), row.get("parallel_ids") or []
    if not isinstance(query, str) or not query or not relevant or not _are_ids(relevant):
        raise QuizError(f'{where}: expected {{"query": text, "relevant_ids": [ids]}}')
    if not _are_ids(parallel) or not isinstance(answer, str | None):
        raise QuizError(f"{where}: `parallel_ids` are a list of ids, `answer` is text or null.")
    return Asked(
        query,
        frozenset(relevant),
        frozenset(parallel),
        answer,
        str(row.get("lang") or ""),
        bool(row.get("crosslingual")),
        number,
    )


def _are_ids(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)
