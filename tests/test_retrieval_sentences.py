import pytest

from retrieval.sentences import sentence_spans


def split(text: str) -> list[str]:
    return [text[start:end] for start, end in sentence_spans(text)]


@pytest.mark.parametrize(
    "sentences",
    [
        ["One ends.", "Two ends!", "Three ends?"],
        ["Dr. Smith paid 3.5 dollars, i.e. too much.", "He left."],
        ["See e.g. Section 2 and Art. 5 of the act.", "It applies."],
        ["The U.S. Court agreed.", "J. R. Doe did not."],
        ['She said "Stop."', "He did."],
        ["(It was late.)", "They slept."],
        ["Wait... what is that?", "Nothing."],
        ["Version 3.", "The next one is 4.0."],
        ["Open os.path and a.b.c here.", "Close it."],
        ["Am 3. Oktober, z. B. in Berlin, wird gefeiert.", "Alle kommen."],
        ["¿Qué hora es?", "Son las tres."],
        ["本合同有效。", "双方同意！", "真的吗？", "是。"],
        ["यह एक वाक्य है।", "यह दूसरा है।"],
        ["**Bold ends.**", "Then more."],
    ],
)
def test_sentences_are_found(sentences: list[str]) -> None:
    gap = "" if "。" in sentences[0] else " "
    assert split(gap.join(sentences)) == sentences


def test_list_items_and_paragraphs_end_sentences() -> None:
    text = "Take:\n- one apple\n- two pears\n1. Wash them\n2. Eat them\n\nDone"
    assert split(text) == [
        "Take:",
        "- one apple",
        "- two pears",
        "1. Wash them",
        "2. Eat them",
        "Done",
    ]


def test_a_single_line_break_does_not_end_a_sentence() -> None:
    assert split("A line that\ngoes on. Then\nanother.") == [
        "A line that\ngoes on.",
        "Then\nanother.",
    ]


def test_spans_lie_within_the_asked_range() -> None:
    text = "Zero. One. Two."
    assert [text[a:b] for a, b in sentence_spans(text, 6, 10)] == ["One."]
