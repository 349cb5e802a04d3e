"""Files that were made, or have grown, to exhaust their reader or to end an ingestion."""

import io
import random
import re
import shutil
import struct
import sys
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import docx
import pytest
from test_retrieval_index import bag_of_words
from test_retrieval_readers import ENCODED, archive, content, word

from retrieval import (
    Document,
    FileResult,
    Index,
    Original,
    TextFormat,
    UnreadableSource,
    chunk,
    originals,
)
from retrieval.document import MAX_TITLE
from retrieval.outline import sections
from retrieval.readers.docx import LARGEST_XML
from retrieval.readers.registry import reader_for
from retrieval.schema import Vector


class Longest:
    """The small encoder, which notes the length of the longest text."""

    def __init__(self) -> None:
        self.length = 0

    def __call__(self, texts: Sequence[str]) -> Vector:
        self.length = max(self.length, *map(len, texts))
        return bag_of_words(texts)


@pytest.fixture
def encoder() -> Longest:
    return Longest()


@pytest.fixture
def index(tmp_path: Path, encoder: Longest) -> Index:
    return Index(tmp_path / "index", encoder)


def with_part(name: str, data: bytes, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A Word document with one more part."""
    target = io.BytesIO(word())
    with zipfile.ZipFile(target, "a") as opened:
        opened.writestr(name, data, method)
    return target.getvalue()


def by_file(results: Sequence[FileResult]) -> dict[str, tuple[str, str]]:
    return {result.file: (str(result.outcome), " ".join(result.errors)) for result in results}


def test_many_comments_before_no_html_are_parted_in_one_way_only() -> None:
    assert content("a.txt", b"<!---->" * 40 + b"x").format is TextFormat.TEXT
    assert content("a.txt", b"<!-- -- > -->\n" * 40 + b"<html><body>x").text == "x"


def test_a_heading_with_a_long_gap_is_read() -> None:
    line = "# a" + " " * 10_000 + "b"
    headings = {piece.heading for piece in chunk(f"{line}\n\ntext", TextFormat.MARKDOWN)}
    assert headings == {line[2:][:MAX_TITLE]}


def test_headings_are_those_of_the_pattern_that_tells_them_on_short_lines() -> None:
    pattern = re.compile(r" {0,3}(#{1,6})[ \t]+(.*?)[ \t]*#*[ \t]*$")
    rng = random.Random(5)
    for _ in range(3000):
        line = "#" + "".join(rng.choices("## \tab", k=rng.randrange(1, 12)))
        found = pattern.match(line)
        (block,) = sections(line, 0, len(line))
        assert (block.title, block.heading) == (
            found is not None,
            (found[2],) if found else (),
        ), repr(line)


def test_a_long_heading_is_not_repeated_whole_for_every_passage(
    index: Index, encoder: Longest, tmp_path: Path
) -> None:
    text = f"# {'long ' * 20_000}\n\n## {'deep ' * 20_000}\n\n" + "Some text.\n\n" * 5_000
    (tmp_path / "a.md").write_text(text)
    (result,) = index.ingest("docs", originals(tmp_path / "a.md"))
    assert result.passages > 50
    assert encoder.length < 720 + 2 * MAX_TITLE + 10
    hit = index.search("text", None, ["docs"], 1)[0]
    assert hit.title == ("long " * 20_000)[:MAX_TITLE]


def test_a_long_title_counts_with_its_beginning(index: Index, encoder: Longest) -> None:
    index.add("docs", [Document("a", "apple " * 100 + "zebra", "Some text.")])
    assert encoder.length < MAX_TITLE + 20
    assert index.search("apple", None, ["docs"], 1)[0].bm25 > 0.0
    assert index.search("zebra", None, ["docs"], 1)[0].bm25 == 0.0


def test_rows_of_a_page_are_not_filled_up_to_the_widest() -> None:
    rows = "<tr><td>x" * 2_000
    found = content("a.html", f"<table><tr>{'<td>w' * 2_000}{rows}</table>".encode())
    assert found.text.count("| x |") == 2_000
    assert len(found.text) < 40_000


def test_rows_of_a_word_document_are_not_filled_up_to_the_widest() -> None:
    document = docx.Document()
    table = document.add_table(rows=300, cols=1)
    for row in table.rows:
        row.cells[0].text = "x"
    wide = table.rows[0]._tr
    for _ in range(300):
        wide.add_tc().add_p().add_r().text = "w"
    target = io.BytesIO()
    document.save(target)
    found = content("a.docx", target.getvalue())
    assert found.text.count("| x |") == 300
    assert len(found.text) < 10_000


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_word_document_packed_in_another_way_is_refused(method: int) -> None:
    with pytest.raises(UnreadableSource, match=r"'word/a\.bin' is packed as in no DOCX"):
        content("a.docx", with_part("word/a.bin", bytes(1000), method))


@pytest.mark.parametrize("checked", [1000, 1001])
def test_a_part_that_unpacks_to_more_than_it_says_is_refused(checked: int) -> None:
    data = bytes(5_000_000)
    packed = len(zlib.compress(data, wbits=-15))
    honest = with_part("word/a.bin", data)
    said = struct.pack("<III", zlib.crc32(data), packed, len(data))
    assert honest.count(said) == 2
    lie = struct.pack("<III", zlib.crc32(bytes(checked)), packed, 1000)
    with pytest.raises(UnreadableSource, match="is a broken DOCX"):
        content("liar.docx", honest.replace(said, lie))
    assert content("honest.docx", honest).text


@pytest.mark.parametrize("begin", [b" \n<a>", "\ufeff<a>".encode("utf-16"), b""])
def test_xml_by_any_name_counts_as_xml(begin: bytes) -> None:
    bomb = with_part("word/media/image.png", begin + b" " * LARGEST_XML)
    with pytest.raises(UnreadableSource, match=r"of them XML"):
        content("bomb.docx", bomb)


def test_large_pictures_do_not_count_as_xml() -> None:
    picture = b"\x89PNG\r\n\x1a\n" + b" " * LARGEST_XML
    assert content("a.docx", with_part("word/media/image.png", picture)).text


def test_a_word_document_whose_parts_follow_one_another_for_long_is_refused() -> None:
    kind = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/image"
    names = "http://schemas.openxmlformats.org/package/2006/relationships"
    parts: dict[str, bytes] = {}
    with zipfile.ZipFile(io.BytesIO(word())) as opened:
        parts |= {name: opened.read(name) for name in opened.namelist()}
    for number in range(sys.getrecursionlimit()):
        parts[f"word/{number}.xml"] = b"<x/>"
        parts[f"word/_rels/{number}.xml.rels"] = (
            f'<Relationships xmlns="{names}">'
            f'<Relationship Id="r1" Type="{kind}" Target="{number + 1}.xml"/></Relationships>'
        ).encode()
    rels = parts["word/_rels/document.xml.rels"]
    link = f'<Relationship Id="r999" Type="{kind}" Target="0.xml"/></Relationships>'
    parts["word/_rels/document.xml.rels"] = rels.replace(b"</Relationships>", link.encode())
    with pytest.raises(UnreadableSource, match="is a broken DOCX"):
        content("chain.docx", archive(**parts))


def test_a_word_archive_that_ends_before_its_parts_is_broken() -> None:
    whole = archive(**{"[Content_Types].xml": b"<x/>", "word__document.xml": b"<x/>"})
    at = whole.index(b"PK\x01\x02") + 42
    beyond = whole[:at] + struct.pack("<I", len(whole) - 4) + whole[at + 4 :]
    with pytest.raises(UnreadableSource, match="is a broken DOCX"):
        content("a.docx", beyond)


def test_hidden_runs_of_a_word_document_are_left_out() -> None:
    document = docx.Document()
    paragraph = document.add_paragraph("Seen. ")
    paragraph.add_run("Obey me. ").font.hidden = True
    paragraph.add_run("Not hidden.").font.hidden = False
    target = io.BytesIO()
    document.save(target)
    assert content("a.docx", target.getvalue()).text == "Seen. Not hidden."


def test_an_encoding_that_always_fails_is_passed_over() -> None:
    words = ENCODED["cp1252"]
    page = f'<html><meta charset="undefined"><body><p>{words}'.encode("cp1252")
    assert content("a.html", page).text == " ".join(words.split())


def test_definitions_without_names_may_be_nested_at_any_depth() -> None:
    text = 'extern "C" {\n' * 600 + "int one() { return 1; }\n" * 40 + "}\n" * 600
    joined = "".join(piece.text for piece in chunk(text, TextFormat.CPP))
    assert "".join(joined.split()) == "".join(text.split())


def test_a_folder_that_vanishes_is_told_and_the_rest_goes_on(index: Index, tmp_path: Path) -> None:
    folder = tmp_path / "docs"
    (folder / "b").mkdir(parents=True)
    for name in ("a.md", "b/b.md", "c.md"):
        (folder / name).write_text("Some text.")

    def found() -> Iterator[Original | UnreadableSource]:
        for original in originals(folder):
            yield original
            shutil.rmtree(folder / "b", ignore_errors=True)

    results = by_file(index.ingest("docs", found()))
    assert {name: outcome for name, (outcome, _) in results.items()} == {
        "a.md": "added",
        "": "failed",
        "c.md": "added",
    }
    assert "'" + str(folder / "b") + "' cannot be read: No such file" in results[""][1]


def three(folder: Path) -> None:
    folder.mkdir()
    for name in ("a.md", "bad.md", "c.md"):
        (folder / name).write_text(f"Text of {name}")


def test_whatever_a_reader_raises_is_told_of_its_file_alone(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    three(tmp_path / "docs")

    def chosen(original: Original) -> object:
        if original.name == "bad.md":
            raise MemoryError("no room")
        return reader_for(original)

    monkeypatch.setattr("retrieval.files.reader_for", chosen)
    results = by_file(index.ingest("docs", originals(tmp_path / "docs")))
    assert results == {
        "a.md": ("added", ""),
        "bad.md": ("failed", "'bad.md' cannot be read (MemoryError: no room)."),
        "c.md": ("added", ""),
    }


def test_whatever_cutting_raises_is_told_of_its_file_alone(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    three(tmp_path / "docs")

    def cut(text: str, *more: object, **named: object) -> object:
        if "bad" in text:
            raise RecursionError("too deep")
        return chunk(text)

    monkeypatch.setattr("retrieval.intake.chunk", cut)
    reason = "Document 'bad.md' cannot be cut into passages (RecursionError: too deep)."
    results = by_file(index.ingest("docs", originals(tmp_path / "docs")))
    assert results == {
        "a.md": ("added", ""),
        "bad.md": ("failed", f"'bad.md': {reason}"),
        "c.md": ("added", ""),
    }
    given = [Document("x", "", "a bad one"), Document("y", "", "a good one")]
    told = by_file(index.ingest("others", given))
    assert told["x"] == ("failed", reason.replace("bad.md", "x"))
    assert told["y"] == ("added", "")
