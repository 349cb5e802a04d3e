from pathlib import Path

import pytest
from test_retrieval_index import bag_of_words

from retrieval.document import Document
from retrieval.index import Index
from retrieval.relevance import SIGNALS, least_relevance, relevance, signals
from retrieval.search_settings import SearchSettings

SETTINGS = SearchSettings()
RULES = [
    Document(f"rule-{n}", f"Rule {n}", f"Widget {word} must be registered before the month ends.")
    for n, word in enumerate("alpha beta gamma delta epsilon zeta eta theta iota kappa".split())
]


@pytest.fixture
def index(tmp_path: Path) -> Index:
    opened = Index(tmp_path, bag_of_words)
    opened.add("rules", RULES)
    return opened


def chance(index: Index, question: str) -> float:
    return relevance(question, index.survey(question, None, ["rules"], 2), SETTINGS)


def test_a_question_that_a_passage_answers_is_likelier_than_one_that_none_does(
    index: Index,
) -> None:
    held = chance(index, "When must widget gamma be registered?")
    assert held > least_relevance() > chance(index, "Who painted the ceiling of the chapel?")


def test_without_its_passage_a_question_is_less_likely_answered(index: Index) -> None:
    question = "When must widget gamma be registered?"
    before = chance(index, question)
    index.remove("rules", "rule-2")
    assert chance(index, question) < before


def test_nothing_found_answers_nothing(index: Index) -> None:
    assert relevance("anything", [], SETTINGS) == 0.0
    assert signals("anything", [], SETTINGS) is None


def test_a_signal_has_a_name(index: Index) -> None:
    read = signals("widget gamma", index.survey("widget gamma", None, ["rules"], 2), SETTINGS)
    assert read is not None and read.shape == (len(SIGNALS),)
