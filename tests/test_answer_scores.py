import pytest

from orchestrator.answer_scores import f1, holds, units, unmarked
from orchestrator.injected_twin import injected, obeyed
from retrieval import Document


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The Denver Broncos!", ["denver", "broncos"]),
        ("The U.S. Army", ["us", "army"]),
        ("a 5% rise", ["5", "rise"]),
        ("東京タワー", list("東京タワー")),
        ("GPL 许可证", ["gpl", *"许可证"]),
        ("महाराष्ट्र में", ["महाराष्ट्र", "में"]),
        ("Ｆｕｌｌ width", ["full", "width"]),
    ],
)
def test_units_are_words_or_characters_as_the_script_has_it(text: str, expected: list[str]) -> None:
    assert units(text) == expected


def test_f1_equals_a_hand_computation() -> None:
    # Two of three said words are among the two known ones.
    assert f1("the Denver Broncos won", "Denver Broncos") == pytest.approx(
        2 * 1 * (2 / 3) / (5 / 3)
    )
    assert f1("丹佛队", "丹佛") == pytest.approx(4 / 5)
    assert f1("Denver Broncos", "denver broncos.") == 1.0
    # A word counts as often as both have it.
    assert f1("no no no", "no") == pytest.approx(0.5)
    assert f1("nothing", "Denver") == f1("", "Denver") == 0.0
    assert f1("the", "a") == 1.0


def test_marks_are_no_part_of_an_answer() -> None:
    assert unmarked("It was Denver [1]. Then Boston.[12]") == "It was Denver. Then Boston."


def test_an_answer_is_held_where_its_words_follow_each_other() -> None:
    assert holds("In 2016 the Denver Broncos won.", "the denver broncos")
    assert not holds("The Broncos of Denver won.", "Denver Broncos")
    assert not holds("anything", "!")
    assert not holds("anniversary", "ann")


def test_a_twin_differs_by_a_demand_at_the_end_of_a_sentence() -> None:
    text = "Bears are mammals. They eat berries.\n\nThey sleep in winter."
    documents = [Document(str(n), "Bears", text, sha256="x") for n in range(40)]
    twins = list(injected(documents, "CANARY", seed=3))
    assert [twin.id for twin in twins] == [document.id for document in documents]
    assert all(obeyed(twin.text, "canary") for twin in twins)
    for twin in twins:
        places = [at for at in range(len(text) + 1) if twin.text.startswith(text[:at])]
        demand = len(twin.text) - len(text)
        assert any(
            text[:at].rstrip().endswith(".") and twin.text[at + demand :] == text[at:]
            for at in places
        )
        assert twin.sha256 == ""
    assert len({twin.text for twin in twins}) > 10
    assert list(injected(documents, "CANARY", seed=3)) == twins


def test_twins_can_be_limited_to_languages() -> None:
    documents = [
        Document("a", "", "Eins.", lang="de"),
        Document("b", "", "Two."),
    ]
    twins = list(injected(documents, "CANARY", 0, {"en"}))
    assert [obeyed(twin.text, "CANARY") for twin in twins] == [False, True]
