import random
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from test_retrieval_index import bag_of_words

from retrieval import Attributor, Encoder, Passage


def passage(name: str, text: str, start: int = 0) -> Passage:
    return Passage(
        passage_id=f"{name}#1",
        document_id=name,
        collection="law",
        title=name.title(),
        url=f"https://example.org/{name}",
        text=text,
        start=start,
        end=start + len(text),
        score=1.0,
        similarity=0.9,
        bm25=3.0,
    )


GPL = passage(
    "gpl",
    "You may convey verbatim copies of the source code. "
    "You must keep intact all notices stating that this license applies. "
    "The warranty lasts 30 days.",
    start=100,
)
TENANCY = passage("tenancy", "A tenant may terminate the lease with three months notice.")
CHINESE = passage("合同", "合同可以由双方协商解除。违约方应当承担赔偿责任。")
PASSAGES = (GPL, TENANCY, CHINESE)


def attribute(text: str, passages: Sequence[Passage] = PASSAGES) -> tuple[str, Attributor]:
    attributor = Attributor(passages, bag_of_words)
    return attributor.feed(text) + attributor.flush(), attributor


@pytest.mark.parametrize(
    ("answer", "marked"),
    [
        (
            "You may convey verbatim copies of the source code. I like it.",
            "You may convey verbatim copies of the source code. [1] I like it.",
        ),
        (
            "Bananas are yellow and grow in the tropics. Nothing here is known.",
            "Bananas are yellow and grow in the tropics. Nothing here is known.",
        ),
        (
            "A tenant may terminate the lease with three months notice.\n\n"
            "You may convey verbatim copies of the source code!\n"
            "A tenant may terminate the lease, with three months notice.",
            "A tenant may terminate the lease with three months notice. [1]\n\n"
            "You may convey verbatim copies of the source code! [2]\n"
            "A tenant may terminate the lease, with three months notice. [1]",
        ),
        (
            "1. You must keep intact all notices stating that this license applies\n"
            "2. Bananas, i.e. fruit, are yellow",
            "1. You must keep intact all notices stating that this license applies [1]\n"
            "2. Bananas, i.e. fruit, are yellow",
        ),
        (
            "合同可以由双方协商解除。违约方应当承担赔偿责任。完",
            "合同可以由双方协商解除。[1]违约方应当承担赔偿责任。[1]完",
        ),
        (
            "**You may convey verbatim copies of the source code.** Really.",
            "**You may convey verbatim copies of the source code.** [1] Really.",
        ),
        (
            "A tenant may terminate the lease [7] with three months notice [3]. Yes.",
            "A tenant may terminate the lease with three months notice. [1] Yes.",
        ),
        (
            'It says "You may convey verbatim copies of the source code." Good.',
            'It says "You may convey verbatim copies of the source code." [1] Good.',
        ),
        ("May you convey verbatim copies of the source code?", None),
        ("You may convey verbatim copies of the source code:\n\nSo.", None),
        ("# You may convey verbatim copies of the source code\n\nSo.", None),
        ("| You may convey verbatim copies of the source code |\n", None),
        ("```\nYou may convey verbatim copies of the source code. Yes.\n```\n", None),
        ("Use `You may convey verbatim copies of the source code. Yes` now:", None),
        ("The warranty lasts 60 days.", None),
        ("A tenant.", None),
        ("", None),
    ],
)
def test_marks_stand_where_a_passage_supports_the_sentence(answer: str, marked: str | None) -> None:
    assert attribute(answer)[0] == (answer if marked is None else marked)


def test_a_citation_points_at_its_mark_and_its_evidence() -> None:
    text, attributor = attribute("Hello. You must keep intact all notices stating it. Bye.")
    (citation,) = attributor.citations
    assert text[citation.start_index : citation.end_index] == "[1]"
    assert text[: citation.start_index].endswith("stating it. ")
    evidence = GPL.text[citation.start - GPL.start : citation.end - GPL.start]
    assert evidence == "You must keep intact all notices stating that this license applies."
    assert (citation.title, citation.url) == ("Gpl", "https://example.org/gpl")
    assert (citation.collection, citation.passage_id) == ("law", "gpl#1")
    assert 0.65 <= citation.score <= 1


def test_an_abbreviation_does_not_end_the_sentence() -> None:
    text, _ = attribute(
        "A tenant, e.g. a widow etc. by law, may terminate the lease with three months notice. So."
    )
    assert text.count("[1]") == 1
    assert "notice. [1] So." in text


def test_without_passages_only_false_marks_go() -> None:
    assert attribute("It is so [1]. `x [1]`", [])[0] == "It is so. `x [1]`"


SAMPLES = [
    "You may convey verbatim copies of the source code. [2] I like it [3].  \n- A tenant may "
    "terminate the lease with three months notice\n- x[1] = 3.5\n\n```py\na[1] = 'End. Next'\n```\n"
    "合同可以由双方协商解除。违约方应当承担赔偿责任。\nYou must keep intact all notices\n"
    "stating that this license applies. Use `os.path. Join` [1][2] etc. and so on. The end",
    "[1] You may convey verbatim copies of the source code.[1]",
]


@pytest.mark.parametrize("text", SAMPLES)
def test_any_cut_into_deltas_gives_the_same_answer(text: str) -> None:
    whole, reference = attribute(text)
    rng = random.Random(5)
    for _ in range(60):
        attributor = Attributor(PASSAGES, bag_of_words)
        parts, rest = [], text
        while rest:
            size = rng.choice([1, 1, 2, 3, 5, 17])
            parts.append(attributor.feed(rest[:size]))
            rest = rest[size:]
        assert "".join(parts) + attributor.flush() == whole
        assert attributor.citations == reference.citations


def test_every_mark_in_random_prose_has_its_citation() -> None:
    rng = random.Random(9)
    signs = ["[1]", "[2]", "[3][4]", "\n", "\n\n", "- ", "**", '"', ")", "?", "`a [1]`"]
    blocks = ["合同可以由双方协商解除。", "\n```\n[1]\n```\n"]
    tokens = [*GPL.text.split(), *TENANCY.text.split(), *signs, *blocks]
    for _ in range(150):
        text = " ".join(rng.choices(tokens, k=60))
        text += " " + GPL.text
        marked, attributor = attribute(text)
        for citation in attributor.citations:
            mark = marked[citation.start_index : citation.end_index]
            assert re.fullmatch(r"\[[1-3]\]", mark)
        prose = re.sub(r"```.*?(```|\Z)|`[^`\n]*(`|$)", "", marked, flags=re.DOTALL | re.MULTILINE)
        assert len(re.findall(r"\[\d+\]", prose)) <= len(attributor.citations)


def test_text_streams_out_at_once_unless_it_may_end_a_sentence() -> None:
    attributor = Attributor(PASSAGES, bag_of_words)
    assert attributor.feed("You may") == "You may"
    assert attributor.feed(" convey verbatim") == " convey verbatim"
    assert attributor.feed(" copies of the source code.") == " copies of the source code."
    assert attributor.feed(" ") == ""
    assert attributor.feed("I") == " [1] I"
    assert attributor.feed(" like") == " like"


def test_the_encoder_is_spared_where_words_already_decide() -> None:
    calls: list[int] = []

    def counting(texts: Sequence[str]) -> npt.NDArray[np.float32]:
        calls.append(len(texts))
        return bag_of_words(texts)

    attributor = Attributor(PASSAGES, counting)
    attributor.feed("Bananas are yellow and grow in the tropics. Apples grow on trees. So.")
    attributor.feed(" A tenant may terminate the lease with three months notice. So.")
    assert calls == []
    for _ in range(3):
        attributor.feed(" Tenants may cancel their lease with three months notice.")
    attributor.flush()
    assert calls == [2, 1, 1]


@pytest.mark.models
def test_paraphrases_are_cited_and_near_subjects_are_not(encoder_dir: Path) -> None:
    encoder = Encoder(encoder_dir)
    passages = [
        passage(
            "iter",
            "Return an iterator of accumulated sums. If func is supplied, it should be a function "
            "of two arguments. The number of elements output matches the input iterable.",
        ),
        passage("gpl", GPL.text),
    ]
    answer = (
        "The function returns an iterator over the accumulated sums of the input. "
        "It was written by a team in Norway in the last century. "
        "The license says you may convey copies of the source code verbatim. "
        "You may sell the source code to your neighbours for a fee."
    )
    attributor = Attributor(passages, encoder.encode)
    marked = attributor.feed(answer) + attributor.flush()
    assert [citation.passage_id for citation in attributor.citations] == ["iter#1", "gpl#1"]
    assert "input. [1] It" in marked
    assert "verbatim. [2] You" in marked


def tallied(answer: str, question: str = "") -> tuple[int, int]:
    attributor = Attributor(PASSAGES, bag_of_words, question)
    attributor.feed(answer)
    attributor.flush()
    return attributor.tally.sentences, attributor.tally.supported


def test_sentences_without_support_are_counted() -> None:
    supported = "A tenant may terminate the lease with three months notice."
    assert tallied(f"{supported} Bananas are yellow and grow in the tropics.") == (2, 1)
    assert tallied(f"# A heading\n\nIs it so? {supported}") == (1, 1)
    assert tallied("So it is.") == (0, 0)


@pytest.mark.parametrize(
    "answer",
    [
        "A tenant may not terminate the lease with three months notice.",
        "A tenant may terminate the lease with four or 4 months notice.",
        "A tenant of Vienna may terminate the lease with three months notice.",
        "The warranty lasts 60 days here.",
    ],
)
def test_what_denies_or_renames_its_evidence_gets_no_mark(answer: str) -> None:
    assert attribute(answer)[0] == answer
    assert tallied(answer) == (1, 0)


def test_a_bare_answer_is_cited_from_the_sentence_that_was_asked_for() -> None:
    question = "With how much notice may a tenant terminate the lease?"
    attributor = Attributor(PASSAGES, bag_of_words, question)
    assert attributor.feed("Three months.") + attributor.flush() == "Three months. [1]"
    assert attributor.citations[0].passage_id == "tenancy#1"
    assert tallied("Four months.", question) == (1, 0)
    assert tallied("Three months.", "What do bananas cost in the tropics?") == (1, 0)
