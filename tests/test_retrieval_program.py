import pytest

from retrieval import TextFormat, chunk

PYTHON = '''"""A shelf of books."""

import os

LIMIT = 3


# Sorts by author.
@os.register
def sort(books):
    """Sort them."""
    return sorted(books)


class Shelf:
    """Größe und Ordnung."""

    width = 3

    def add(self, book):
        self.books.append(book)

    async def find(self, title):
        def matches(book):
            return book.title == title

        return [book for book in self.books if matches(book)]


if __name__ == "__main__":
    Shelf()
'''


def headings(text: str, format: TextFormat, limit: int = 720) -> list[str]:
    return [piece.heading for piece in chunk(text, format, limit)]


def test_functions_are_whole_and_bear_their_names() -> None:
    chunks = chunk(PYTHON, TextFormat.PYTHON, 200)
    assert [piece.heading for piece in chunks] == [
        "",
        "sort",
        "Shelf",
        "Shelf.add",
        "Shelf.find",
        "",
    ]
    by_name = {piece.heading: piece for piece in chunks}
    assert by_name["sort"].text.startswith("# Sorts by author.\n@os.register\ndef sort")
    assert by_name["Shelf"].text.startswith("class Shelf:") and "width" in by_name["Shelf"].text
    assert by_name["Shelf.find"].text.endswith("if matches(book)]")
    for piece in chunks:
        assert piece.text == PYTHON[piece.start : piece.end]
        assert piece.line == PYTHON[: piece.start].count("\n") + 1


def test_a_class_that_fits_stays_whole() -> None:
    assert headings(PYTHON, TextFormat.PYTHON) == ["", "sort", "Shelf", ""]


def test_a_long_function_is_cut_at_lines_and_keeps_its_name() -> None:
    lines = "\n".join(f"    value_{n} = compute({n}, 'größer')" for n in range(60))
    chunks = chunk(f"def long():\n{lines}\n", TextFormat.PYTHON)
    assert len(chunks) > 2
    assert {piece.heading for piece in chunks} == {"long"}
    assert all(piece.text.endswith("')") for piece in chunks)


SAMPLES = {
    TextFormat.C: ("int add(int a, int b) {\n  return a + b;\n}\n", "add"),
    TextFormat.CPP: ("namespace n {\nint Shelf::size() { return 1; }\n}\n", "n"),
    TextFormat.C_SHARP: ("class Shelf {\n  int Size() { return 1; }\n}\n", "Shelf"),
    TextFormat.GO: ("package a\n\nfunc Add(x int) int {\n\treturn x\n}\n", "Add"),
    TextFormat.JAVA: ("class Shelf {\n  int size() { return 1; }\n}\n", "Shelf"),
    TextFormat.JAVASCRIPT: ("export class Shelf {\n  size() { return 1 }\n}\n", "Shelf"),
    TextFormat.PHP: ("<?php\nfunction add($a) {\n  return $a;\n}\n", "add"),
    TextFormat.RUBY: ("class Shelf\n  def size\n    1\n  end\nend\n", "Shelf"),
    TextFormat.RUST: ("impl Shelf {\n    fn size(&self) -> u8 { 1 }\n}\n", "Shelf"),
    TextFormat.TSX: ("function View(p: P) {\n  return <b>{p.x}</b>;\n}\n", "View"),
    TextFormat.TYPESCRIPT: ("interface Shelf {\n  size: number;\n}\n", "Shelf"),
}


@pytest.mark.parametrize("format", SAMPLES)
def test_every_language_names_its_definitions(format: TextFormat) -> None:
    text, name = SAMPLES[format]
    assert name in headings(text, format)


@pytest.mark.parametrize(
    ("format", "member"),
    [
        (TextFormat.JAVA, "Shelf.size"),
        (TextFormat.C_SHARP, "Shelf.Size"),
        (TextFormat.RUBY, "Shelf.size"),
        (TextFormat.RUST, "Shelf.size"),
        (TextFormat.CPP, "n.Shelf::size"),
    ],
)
def test_members_of_what_is_too_large_bear_both_names(format: TextFormat, member: str) -> None:
    assert member in headings(SAMPLES[format][0], format, 30)


def test_programs_that_do_not_parse_are_cut_all_the_same() -> None:
    broken = PYTHON.replace("def add(self, book):", "def add(self, book")
    chunks = chunk(broken, TextFormat.PYTHON, 200)
    assert "".join("".join(piece.text.split()) for piece in chunks) == "".join(broken.split())


def test_languages_without_a_grammar_are_cut_between_blocks() -> None:
    block = "create table {} (\n  id integer,\n\n  name text\n);\n"
    text = "\n".join(block.format(name) * 3 for name in ("shelf", "book", "author"))
    chunks = chunk(text, TextFormat.CODE, 180)
    assert [piece.text.split()[2] for piece in chunks] == ["shelf", "book", "author"]


def test_pages_are_never_mixed() -> None:
    text = "One. Two.\n\nThree." + "Four. Five."
    at = text.index("Four")
    chunks = chunk(text, pages=[(0, 7), (at, 9)])
    assert [(piece.text, piece.page) for piece in chunks] == [
        ("One. Two.\n\nThree.", 7),
        ("Four. Five.", 9),
    ]


def test_lists_and_tables_stay_whole_where_they_fit() -> None:
    before = "A paragraph that goes before. " * 5
    loose = "- first item\n\n- second item\n\n  with a second paragraph\n\n- third item"
    table = "| a | b |\n| - | - |\n" + "\n".join(f"| {n} | {n * n} |" for n in range(9))
    for block in (loose, table):
        chunks = chunk(f"{before}\n\n{block}\n\nThe end.", TextFormat.MARKDOWN, 200)
        assert any(block in piece.text for piece in chunks)


def test_long_lists_are_cut_at_items_and_tables_at_rows() -> None:
    items = [f"- item {n} says something. It does.\n  And goes on." for n in range(20)]
    rows = [f"| cell {n} | another. Cell. |" for n in range(40)]
    for parts, begin in ((items, "- item"), (rows, "| cell")):
        chunks = chunk("\n".join(parts), TextFormat.MARKDOWN, 200)
        assert len(chunks) > 3
        assert all(piece.text.startswith(begin) for piece in chunks)


def test_text_without_any_end_is_cut_in_linear_time() -> None:
    for text in ("1." * 100_000, "x" * 200_000, "( " * 100_000, "a.b) " * 40_000):
        assert len(chunk(text)) >= len(text) // 720
        assert len(chunk(text[:20_000], TextFormat.PYTHON)) >= 20_000 // 720
