from pathlib import Path

import numpy as np
import pytest
from test_retrieval_index import bag_of_words

from orchestrator.quiz import Asked, Quiz
from orchestrator.retrieval_proof import Draws, Searched, figures, put, search
from orchestrator.retrieval_report import markdown
from retrieval import Document, SearchSettings
from retrieval.evaluation import MEASURES, Shelf, gains
from retrieval.measures import recall
from retrieval.tuning import Labelled

FRUIT = ["apple", "banana", "cherry", "date", "elder", "fig", "grape", "hazel", "iris", "juniper"]
DRAWS = Draws(20, 0)


def silent(_label: str, _done: int, _total: int) -> None:
    return None


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    shelf = Shelf(tmp_path, bag_of_words, bag_of_words)
    index = shelf.open(SearchSettings())
    put(index, "fruit", [Document(name, "", f"The {name} is ripe.") for name in FRUIT], silent)
    index.close()
    return shelf


def quiz(*asked: Asked) -> Quiz:
    return Quiz("fruit", asked)


def test_recall_is_the_share_of_what_is_relevant() -> None:
    assert recall(["a", "x", "b"], {"a", "b", "c"}, 2) == pytest.approx(1 / 3)
    assert recall(["a", "x", "b"], {"a", "b", "c"}, 3) == pytest.approx(2 / 3)
    assert recall(["a"], set(), 5) == 0.0


def test_gains_are_those_of_the_documents_found(shelf: Shelf) -> None:
    asked = [Labelled("ripe apple", frozenset({"apple"})), Labelled("fig", frozenset({"date"}))]
    index = shelf.open(SearchSettings(dense_weight=0.0))
    found = gains(index, "fruit", asked, bag_of_words([one.query for one in asked]))
    index.close()
    assert found["hit@1"].tolist() == [1.0, 0.0]
    assert found["recall@10"][0] == found["mrr@10"][0] == found["ndcg@10"][0] == 1.0
    assert (found["ms"] > 0).all()


def test_halves_alone_do_not_heed_what_a_collection_was_tuned_to(shelf: Shelf) -> None:
    labelled = [Labelled(name, frozenset({name})) for name in FRUIT]
    index = shelf.open(SearchSettings(dense_weight=0.3))
    index.tune("fruit", labelled)
    vector = bag_of_words(["apple"])[0]
    heeded = index.survey("apple", vector, ["fruit"], 1)[0].offer.weight
    alike = shelf.open(SearchSettings(alike=True)).survey("apple", vector, ["fruit"], 1)
    assert heeded is not None
    assert alike[0].offer.weight is None


def test_questions_tune_one_half_and_are_reported_on_the_other(shelf: Shelf) -> None:
    asked = [
        Asked(f"{name} {n}", frozenset({name}), lang="en", number=2 * at + n)
        for at, name in enumerate(FRUIT)
        for n in (1, 2)
    ]
    one = search(shelf, quiz(*asked), SearchSettings(), silent)
    assert set(one.gains) == {"words", "meaning", "fused", "tuned"}
    assert one.weight is not None
    assert one.curve
    assert len(one.gains["words"]["hit@5"]) == 10
    found = figures([one], DRAWS)
    ways = found["collections"]["fruit"]["groups"]["en"]["ways"]
    assert set(MEASURES) < set(ways["tuned"])
    assert ways["words"]["hit@1"]["value"] == 1.0
    assert found["summary"]["other_languages"] is None


def searched(name: str, asked: list[Asked], **by_way: list[float]) -> Searched:
    found = {
        way: {key: np.array(values) for key in (*MEASURES, "ms")} for way, values in by_way.items()
    }
    return Searched(Quiz(name, tuple(asked)), 0.5, (), found)


def test_summaries_are_means_over_collections_of_like_questions() -> None:
    english = [Asked("q", frozenset({"d"}), lang="en") for _ in range(4)]
    mixed = [
        Asked("q", frozenset({"d"}), lang="en"),
        Asked("q", frozenset({"d"}), lang="de"),
        Asked("q", frozenset({"d"}), lang="es", across=True),
    ]
    found = figures(
        [
            searched("a", english, words=[1, 1, 0, 0], meaning=[0, 0, 0, 0], fused=[1, 1, 1, 0]),
            searched("b", english[:1], words=[1], meaning=[1], fused=[1]),
            searched("c", mixed, words=[0, 1, 0], meaning=[0, 0, 1], fused=[0, 0, 1]),
        ],
        DRAWS,
    )
    summary = found["summary"]
    assert summary["english"]["collections"] == ["a", "b"]
    assert summary["english"]["ways"]["words"]["hit@5"]["value"] == pytest.approx((0.5 + 1) / 2)
    assert summary["english"]["gain"]["value"] == pytest.approx((0.75 + 1) / (0.5 + 1))
    assert summary["other_languages"]["questions"] == 1
    assert summary["other_languages"]["gain"]["value"] == 0.0
    assert summary["across_languages"]["ways"]["meaning"]["ndcg@10"]["value"] == 1.0


def test_the_page_holds_every_collection_and_its_figures(shelf: Shelf) -> None:
    one = search(
        shelf, quiz(Asked("apple", frozenset({"apple"}), lang="en")), SearchSettings(), silent
    )
    told = {"encoder": "bag", "dense_weight": 0.85, "answers": None, **figures([one], DRAWS)}
    page = markdown(told, ["search.svg"])
    assert "## fruit\n\nnot tuned, 1 of 1 questions reported." in page
    assert "| en | 1 | words | 1.000 [1.000, 1.000] |" in page
    assert "![search](search.svg)" in page
