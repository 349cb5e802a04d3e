import pytest

from retrieval.markdown import Kind, MarkdownReader
from retrieval.marks import MarkStripper


def strip(text: str) -> str:
    reader, stripper = MarkdownReader(), MarkStripper(20, 4)
    pieces = [piece for c in text for piece in stripper.read(c, reader.read(c))]
    return "".join(character for character, _ in [*pieces, *stripper.flush()])


def kinds(text: str) -> str:
    reader = MarkdownReader()
    letters = {Kind.PROSE: ".", Kind.INLINE_CODE: "i", Kind.FENCED_CODE: "F"}
    return "".join(letters[reader.read(character)] for character in text)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("So it is [1].", "So it is."),
        ("So it is. [1] And [2] so on.", "So it is. And so on."),
        ("So it is.[1][2] Then [3][4].", "So it is. Then."),
        ("As shown[3], yes [1, 2; 4] and [^5].", "As shown, yes and."),
        ("See【1】 and 【2†source】.", "See and."),
        ("合同有效[1]。", "合同有效。"),
        ("[1] First line\n[2]: second", "First line\nsecond"),
        ("- [1] item", "- item"),
        ("End [2]", "End"),
        ("[1](https://x.y) is a link", "(https://x.y) is a link"),
    ],
)
def test_marks_of_the_model_are_removed(written: str, expected: str) -> None:
    assert strip(written) == expected


@pytest.mark.parametrize(
    "text",
    [
        "Take x[1] and sys.argv[1] and row_2[3] here.",
        "matrix[1][2] = f(y)[3]",
        "The first is a[0], the list is [0] or [] or [x] or [100].",
        "In [2024] and [1a] and [ 1 ] and an open [1",
        "Use `a [1]` or:\n```py\nb = c [1]\n```\nDone.",
        "- [ ] todo\n- [x] done",
        "values[25] of many  spaces ",
        'Call len([1, 2, 3]), or x = [1, 2] and {"ids": [1, 2]}.',
        "f([1]) is [[1]] here",
        "sorted([3, 1, 2]) gives [1, 2, 9].",
    ],
)
def test_other_brackets_stay(text: str) -> None:
    assert strip(text) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a `b` c", "..iii.."),
        ("``a`b`` c", "iiiiiii.."),
        ("x ` y\nz", "..iii.."),
        ("```\na\n```\nb", "iiFFFFFFFF."),
        ("~~~\n```\n~~~\nb", ".." + "F" * 10 + "."),
        ("  ```py\na\n", "..iiFFFFFF"),
        ("````\n```\n````\nb", "ii" + "F" * 12 + "."),
        ("```a``` b", "iiFFiii.."),
    ],
)
def test_code_is_told_from_prose(text: str, expected: str) -> None:
    assert kinds(text) == expected
