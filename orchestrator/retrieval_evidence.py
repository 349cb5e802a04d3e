"""From options to the proof of a search: collections filled, questions asked, figures made."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from experts.store import default_home
from orchestrator.answer_proof import Asking, answer_figures, interview
from orchestrator.client import AsyncClient
from orchestrator.config import Config
from orchestrator.in_process import client_of, reading
from orchestrator.injected_twin import injected
from orchestrator.quiz import Asked, Quiz, QuizError, read_documents, read_questions, read_quizzes
from orchestrator.replicas import collections_folder, open_encoder
from orchestrator.retrieval_proof import Draws, Progress, figures, fill, put, search
from orchestrator.search_settings import search_settings
from retrieval.evaluation import Shelf
from retrieval.search_settings import SearchSettings
from router.vectors import VectorCache

EMBEDDED = "embedded"
"""What `--answers` names to ask the configuration's own experts, in this process."""

_TWIN = "-injected"


@dataclass(frozen=True)
class Wanted:
    """What is measured: `data` with documents, or `queries` on a `collection` that is there.

    `answers` is the URL of a service, or `EMBEDDED`; at most `rows` questions of a collection are
    asked. `injected` names a collection with injected twins, which a service must have.
    """

    data: Path | None
    only: tuple[str, ...]
    languages: tuple[str, ...]
    collection: str | None
    queries: Path | None
    config: Path | None
    work: Path | None
    answers: str | None
    injected: str | None
    canary: str
    model: str
    max_tokens: int
    rows: int
    resamples: int
    seed: int
    cache: Path
    threads: int


def prove_retrieval(wanted: Wanted, progress: Progress) -> dict[str, Any]:
    """Return all figures of `report.json`.

    Raises `QuizError`, and what configuration, models, collections and a service raise.
    """
    quizzes = [_spoken(quiz, wanted.languages) for quiz in _quizzes(wanted)]
    config = Config.load(wanted.config)
    root = collections_folder(config)
    if wanted.data is not None:
        root = wanted.work or default_home() / "evaluation"
    encoder = open_encoder(config, wanted.threads)
    passages = VectorCache(wanted.cache, encoder.encode_passages, _name(config))
    shelf = Shelf(root, passages, encoder.encode, encoder.reads)
    settings = search_settings(config.retrieval)
    draws = Draws(wanted.resamples, wanted.seed)
    fill(shelf, quizzes, progress)
    searched = [search(shelf, quiz, settings, progress) for quiz in quizzes]
    found = {
        "encoder": config.encoder.source,
        "dense_weight": settings.dense_weight,
        **figures(searched, draws),
        "answers": None,
    }
    if wanted.answers is not None:
        twins = _twins(shelf, wanted, quizzes, progress)
        own = reading(config, root)
        found["answers"] = asyncio.run(_answers(wanted, own, quizzes, twins, draws, progress))
    return found


def _spoken(quiz: Quiz, languages: tuple[str, ...]) -> Quiz:
    if not languages:
        return quiz
    # Lines keep their halves: who tunes and who is reported does not hang on the languages.
    asked = tuple(one for one in quiz.asked if one.lang in languages)
    if not asked:
        raise QuizError(f"{quiz.collection}: no question is in {' or '.join(languages)}.")
    return replace(quiz, asked=asked)


def _name(config: Config) -> str:
    prefix = config.retrieval.passage_prefix
    return config.encoder.source if prefix is None else f"{config.encoder.source} {prefix}"


def _quizzes(wanted: Wanted) -> tuple[Quiz, ...]:
    if wanted.data is not None:
        quizzes = read_quizzes(wanted.data)
        missing = set(wanted.only) - {quiz.collection for quiz in quizzes}
        if missing:
            raise QuizError(f"{wanted.data}: there is no folder {min(missing)!r} with questions.")
        return tuple(q for q in quizzes if not wanted.only or q.collection in wanted.only)
    if wanted.collection is None or wanted.queries is None:
        raise QuizError("Without a folder of data a collection and its questions are needed.")
    return (Quiz(wanted.collection, read_questions(wanted.queries)),)


def _twins(
    shelf: Shelf, wanted: Wanted, quizzes: Sequence[Quiz], progress: Progress
) -> dict[str, str]:
    """The collection of injected twins for each collection, made where its documents are known."""
    if wanted.injected is not None:
        return dict.fromkeys([quiz.collection for quiz in quizzes], wanted.injected)
    if wanted.answers != EMBEDDED:
        return {}
    names: dict[str, str] = {}
    index = shelf.open(SearchSettings())
    try:
        for quiz in quizzes:
            languages = {asked.lang for asked in _answerable(quiz, wanted.rows)}
            if quiz.documents is None or not languages:
                continue
            name = f"{quiz.collection[: 63 - len(_TWIN)]}{_TWIN}"
            clean = read_documents(quiz.documents)
            twins = list(injected(clean, wanted.canary, wanted.seed, languages))
            put(index, name, twins, progress)
            names[quiz.collection] = name
    finally:
        index.close()
    return names


def _answerable(quiz: Quiz, rows: int) -> list[Asked]:
    return [asked for asked in quiz.reported if asked.answer and not asked.across][:rows]


async def _answers(
    wanted: Wanted,
    config: Config,
    quizzes: Sequence[Quiz],
    twins: Mapping[str, str],
    draws: Draws,
    progress: Progress,
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    async with _client(wanted, config) as client:
        for quiz in quizzes:
            name, asked = quiz.collection, _answerable(quiz, wanted.rows)
            if asked:
                canary = wanted.canary
                twin = twins.get(name, "")
                asking = Asking(name, twin, canary, wanted.model, wanted.max_tokens)
                answered = await interview(client, asking, asked, progress)
                found[name] = answer_figures(answered, asking, draws)
    return found


def _client(wanted: Wanted, config: Config) -> AsyncClient:
    if wanted.answers == EMBEDDED:
        return client_of(config)
    return AsyncClient(base_url=wanted.answers, timeout=600.0)
