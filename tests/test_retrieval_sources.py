import importlib
import json
from pathlib import Path

import pytest

from retrieval import (
    Document,
    TextFormat,
    UnreadableSource,
    licence_texts,
    python_docs,
    read_documents,
)


@pytest.fixture(scope="module")
def docs() -> dict[str, Document]:
    return {document.id: document for document in python_docs()}


@pytest.fixture(scope="module")
def licences() -> dict[str, Document]:
    return {document.id: document for document in licence_texts()}


def test_python_docs_hold_the_strings_of_the_interpreter(docs: dict[str, Document]) -> None:
    assert 700 < len(docs) < 1400
    for name in ("json.dumps", "itertools.accumulate", "os.path.join"):
        module, _, member = name.rpartition(".")
        written = getattr(importlib.import_module(module), member).__doc__
        first = written.strip().splitlines()[0]
        assert first in docs[name].text
        assert docs[name].license == "PSF-2.0"


@pytest.mark.parametrize(
    ("name", "page"),
    [
        ("json.dumps", "json.html#json.dumps"),
        ("os.path.join", "os.path.html#os.path.join"),
        ("builtins.sorted", "functions.html#sorted"),
        ("builtins.str.split", "stdtypes.html#str.split"),
        ("builtins.int.bit_length", "stdtypes.html#int.bit_length"),
        ("builtins.copyright", None),
        ("asyncio.AbstractEventLoop", None),
        ("builtins.ValueError", "exceptions.html#ValueError"),
        ("asyncio.gather", "asyncio-task.html#asyncio.gather"),
        ("pathlib.Path.mkdir", "pathlib.html#pathlib.Path.mkdir"),
    ],
)
def test_urls_lead_to_the_library_reference(
    docs: dict[str, Document], name: str, page: str | None
) -> None:
    if page is None:
        assert name not in docs
    else:
        assert docs[name].url == f"https://docs.python.org/3/library/{page}"


def test_python_docs_are_the_same_at_every_start(docs: dict[str, Document]) -> None:
    assert {document.id: document for document in python_docs()} == docs
    assert not [name for name, document in docs.items() if " at 0x" in document.text]


def test_licences_are_recognised_by_their_text(licences: dict[str, Document]) -> None:
    assert {"MIT", "BSD-3-Clause", "BSD-2-Clause", "Apache-2.0", "MPL-2.0", "PSF-2.0"} <= set(
        licences
    )
    telling = {
        "MIT": "The above copyright notice and this permission notice shall be included",
        "BSD-3-Clause": "may be used to endorse or promote products",
        "Apache-2.0": "Grant of Patent License",
        "MPL-2.0": "Larger Work",
        "PSF-2.0": "PSF is making Python available to Licensee",
    }
    for name, words in telling.items():
        assert words in licences[name].text
        assert licences[name].url == f"https://spdx.org/licenses/{name}.html"
        assert name in licences[name].title
    assert "endorse" not in licences["BSD-2-Clause"].text


def test_licence_texts_are_unwrapped_and_hold_one_licence(licences: dict[str, Document]) -> None:
    assert "without restriction, including without limitation" in licences["MIT"].text
    assert licences["Apache-2.0"].text.count("Grant of Patent License") == 1
    assert len(licences["MIT"].text) < 1300


def test_a_folder_is_read_in_order(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "b.md").write_bytes("\ufeff# Größe\r\n\r\nText.\r\n".encode())
    (tmp_path / "a b.txt").write_text("Plain.")
    (tmp_path / "sub" / "c.MD").write_text("No heading.")
    (tmp_path / ".hidden" / "d.md").write_text("Hidden.")
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "image.png").write_bytes(b"\x89PNG")
    (tmp_path / "link.md").symlink_to("/etc/passwd")
    documents = list(read_documents(tmp_path, base_url="https://h/"))
    assert [document.id for document in documents] == ["a b.txt", "b.md", "sub/c.MD"]
    assert [document.title for document in documents] == ["a b", "Größe", "c"]
    assert documents[0].url == "https://h/a%20b.txt"
    assert documents[1].text == "# Größe\r\n\r\nText.\r\n"
    assert [document.format for document in documents] == [
        TextFormat.TEXT,
        TextFormat.MARKDOWN,
        TextFormat.MARKDOWN,
    ]


def test_json_lines_are_read(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    row = {"id": "1", "title": "T", "text": "One\u2028two", "url": "u", "license": None, "more": 3}
    file.write_text(json.dumps(row, ensure_ascii=False) + "\n\n")
    assert list(read_documents(file)) == [
        Document("1", "T", "One\u2028two", "u", file="rows.jsonl")
    ]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "not a JSON object"),
        ("[1]", "was expected, not list"),
        ('{"id": "1", "title": "t"}', "'text' is missing"),
        ('{"id": 1, "title": "t", "text": "x"}', "'id' must be a string, not 1"),
        ('{"id": "1", "title": "t", "text": " "}', "has no text"),
        ('{"id": "1", "title": "t", "text": "\\ud800"}', "lone surrogate"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, reason: str) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"id": "0", "title": "t", "text": "fine"}\n' + line + "\n")
    with pytest.raises(UnreadableSource, match=rf"rows\.jsonl:2: .*{reason}"):
        list(read_documents(file))


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "mixed.txt").write_bytes("é\n".encode() + b"caf\xe9")
    with pytest.raises(UnreadableSource, match=r"mixed\.txt.*mixes encodings"):
        list(read_documents(tmp_path))
    (tmp_path / "data.xyz").write_bytes(b"\0")
    for path, reason in (
        (tmp_path / "data.xyz", "is binary; read are text"),
        (tmp_path / "absent", "There is no file or folder"),
    ):
        with pytest.raises(UnreadableSource, match=reason):
            list(read_documents(path))
    (tmp_path / "mixed.txt").unlink()
    with pytest.raises(UnreadableSource, match="holds no"):
        list(read_documents(tmp_path))
