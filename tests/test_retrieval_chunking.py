import random
import time

import pytest

from retrieval import TextFormat, chunk
from retrieval.chunking import CHUNK_WEIGHT, weight

CODE = [format for format in TextFormat if format.is_code]
MARKDOWN = """# Guide

Intro paragraph.

## Install

Run the installer. Then restart.

```sh
# not a heading
pip install thing
```

### Windows

Use the wizard.

## Usage ##

Call `run()`.
"""


def covered(text: str, format: TextFormat, limit: int = CHUNK_WEIGHT) -> None:
    chunks = chunk(text, format, limit)
    position = 0
    for piece in chunks:
        assert piece.text == text[piece.start : piece.end]
        assert piece.text.strip() == piece.text != ""
        assert not text[position : piece.start].strip()
        assert weight(piece.text) <= limit
        position = piece.end
    assert not text[position:].strip()


def test_chunks_cover_the_text_and_keep_offsets() -> None:
    rng = random.Random(3)
    blocks = ["\n", "\n\n", "# H\n", "## I\n", "```\n", "- item\n", "~~~\n", "\r\n", "\u2028"]
    signs = ["é", "e\u0301", " ", "\t", "x" * 40, "🙂", "word ", "Ende. ", "汉字。"]
    for _ in range(300):
        text = "".join(rng.choices(blocks + signs, k=rng.randrange(60)))
        for format in (TextFormat.TEXT, TextFormat.MARKDOWN, TextFormat.CODE, rng.choice(CODE)):
            covered(text, format, rng.choice([8, 20, 60, 200]))


def test_headings_open_chunks_and_stay_as_context() -> None:
    chunks = chunk(MARKDOWN, TextFormat.MARKDOWN)
    assert [piece.heading for piece in chunks] == [
        "Guide",
        "Guide › Install",
        "Guide › Install › Windows",
        "Guide › Usage",
    ]
    assert chunks[1].text.startswith("## Install")
    assert "# not a heading" in chunks[1].text


def test_plain_text_has_no_headings() -> None:
    assert [piece.heading for piece in chunk("# a\n\nb", TextFormat.TEXT)] == [""]


def test_headings_without_text_join_the_next_section() -> None:
    text = "# A\n\n## B\n\n### C\n\nText."
    assert [(piece.text, piece.heading) for piece in chunk(text, TextFormat.MARKDOWN)] == [
        (text, "A › B › C")
    ]


def test_long_paragraphs_are_cut_at_sentences() -> None:
    sentences = [f"This is sentence number {n} of a long paragraph." for n in range(40)]
    chunks = chunk(" ".join(sentences))
    assert len(chunks) > 1
    assert all(piece.text.endswith("paragraph.") for piece in chunks)


def test_long_chinese_is_cut_at_its_stops() -> None:
    text = "本合同自双方签字之日起生效。" * 60
    chunks = chunk(text)
    assert len(chunks) > 3
    assert all(piece.text.endswith("。") for piece in chunks)


def test_combining_marks_stay_with_their_letters() -> None:
    text = "e\u0301" * 500
    assert all(piece.text.startswith("e") for piece in chunk(text, max_weight=31))


def test_nothing_but_combining_marks_is_cut_all_the_same() -> None:
    text = "a" + "\u0301" * 50_000
    started = time.perf_counter()
    chunks = list(chunk(text))
    assert time.perf_counter() - started < 5.0
    assert "".join(text[c.start : c.end] for c in chunks) == text
    assert len(chunks) < 200


def test_long_code_is_cut_at_lines() -> None:
    code = "\n".join(f"value_{n} = compute({n}, 'some.text. More')" for n in range(60))
    chunks = chunk(f"```\n{code}\n```", TextFormat.MARKDOWN)
    lines = {line for piece in chunks for line in piece.text.splitlines()}
    assert lines == {"```", *code.splitlines()}


def test_empty_text_has_no_chunks() -> None:
    assert chunk(" \n\n ", TextFormat.MARKDOWN) == chunk("") == []


def test_a_limit_that_fits_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 8"):
        chunk("text", max_weight=3)
