import shutil
import threading
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from retrieval import (
    CorruptCollection,
    Document,
    EncoderMismatch,
    Index,
    InvalidDocument,
    InvalidName,
    InvalidQuery,
    MissingCollection,
    MissingDocument,
    TextFormat,
)
from retrieval.words import words

DIMENSIONS = 48


def bag_of_words(texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """A small real encoder: signed hashed words, unit length."""
    vectors = np.full((len(texts), DIMENSIONS), 1e-3, dtype=np.float32)
    for row, text in enumerate(texts):
        for word in words(text):
            code = zlib.crc32(word.encode())
            vectors[row, code % DIMENSIONS] += 1 if code & 64 else -1
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


FRUIT = [
    Document("apple", "Apples", "Apples grow on trees. They are harvested in autumn.", "u:apple"),
    Document("banana", "Bananas", "Bananas grow in bunches in the tropics.", "u:banana"),
    Document("cherry", "Cherries", "Cherries have stones. Birds love ripe cherries.", "u:cherry"),
]


@pytest.fixture
def index(tmp_path: Path) -> Index:
    made = Index(tmp_path / "index", bag_of_words)
    made.add("fruit", FRUIT)
    return made


def found(index: Index, text: str, *collections: str, top_k: int = 5) -> list[str]:
    return [hit.document_id for hit in index.search(text, None, collections, top_k)]


def test_a_passage_carries_its_provenance(index: Index) -> None:
    hit = index.search("ripe cherries", None, ["fruit"], 1)[0]
    assert (hit.document_id, hit.collection, hit.title) == ("cherry", "fruit", "Cherries")
    assert (hit.passage_id, hit.url) == ("cherry#1", "u:cherry")
    assert hit.text == FRUIT[2].text[hit.start : hit.end]
    assert hit.score == pytest.approx(1.0)
    assert hit.bm25 > 0


def test_similarity_is_the_cosine_to_the_given_vector(index: Index) -> None:
    query = 7.0 * bag_of_words(["bananas in bunches"])[0]
    for hit in index.search("bananas", query, ["fruit"], 3):
        text = f"{hit.title}\n{hit.text}"
        expected = float(bag_of_words([text])[0] @ query) / float(np.linalg.norm(query))
        assert hit.similarity == pytest.approx(expected, abs=1e-5)


def test_bm25_equals_the_formula(index: Index) -> None:
    hits = {hit.document_id: hit for hit in index.search("harvested", None, ["fruit"], 3)}
    # FTS5: idf = ln((N - n + 0.5) / (n + 0.5)), k1 = 1.2, b = 0.75, length over all columns.
    lengths = [len(list(words(f"{d.title} {d.text}"))) for d in FRUIT]
    norm = 1.2 * (0.25 + 0.75 * lengths[0] / (sum(lengths) / 3))
    expected = np.log((3 - 1 + 0.5) / (1 + 0.5)) * (1 * 2.2) / (1 + norm)
    assert hits["apple"].bm25 == pytest.approx(expected, rel=1e-6)
    assert hits["banana"].bm25 == 0.0


def test_neighbours_count_half_of_a_word(tmp_path: Path) -> None:
    index = Index(tmp_path, bag_of_words)
    texts = {"near": "ripe cherry", "far": "cherry ripe", "a": "fig", "b": "date", "c": "iris"}
    index.add("fruit", [Document(name, "", text) for name, text in texts.items()])
    hits = {hit.document_id: hit for hit in index.search("ripe cherry", None, ["fruit"], 5)}
    norm = 1.2 * (0.25 + 0.75 * 2 / (7 / 5))
    word = np.log((5 - 2 + 0.5) / (2 + 0.5)) * 2.2 / (1 + norm)
    pair = np.log((5 - 1 + 0.5) / (1 + 0.5)) * 2.2 / (1 + norm)
    assert hits["far"].bm25 == pytest.approx(2 * word, rel=1e-6)
    assert hits["near"].bm25 == pytest.approx(2 * word + pair / 2, rel=1e-6)


def test_a_question_of_any_length_can_be_asked(index: Index) -> None:
    question = " ".join(f"word{number} harvested" for number in range(300))
    assert index.search(question, None, ["fruit"], 3)[0].document_id == "apple"


def test_vector_top_ten_equals_brute_force_after_deletions(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    table = rng.standard_normal((400, 32)).astype(np.float32)
    table /= np.linalg.norm(table, axis=1, keepdims=True)

    def encoder(texts: Sequence[str]) -> npt.NDArray[np.float32]:
        rows = [int(text.split()[-1]) if text.split()[-1].isdigit() else 0 for text in texts]
        return table[rows]

    index = Index(tmp_path, encoder)
    index.add("numbers", (Document(f"d{n}", "", f"number {n}") for n in range(400)))
    index.search("zero", table[0], ["numbers"], 1)
    for n in range(0, 400, 3):
        index.remove("numbers", f"d{n}")
    kept = [n for n in range(400) if n % 3]
    for query in rng.standard_normal((25, 32)).astype(np.float32):
        query /= np.linalg.norm(query)
        similarities = table[kept] @ query
        best = np.argsort(-similarities)[:10]
        # No word of the text occurs, so that only the vectors rank.
        hits = index.search("nothing", query, ["numbers"], 10)
        assert [hit.document_id for hit in hits] == [f"d{kept[row]}" for row in best]
        np.testing.assert_allclose([hit.similarity for hit in hits], similarities[best], atol=1e-5)


def test_adding_twice_writes_nothing(index: Index) -> None:
    assert index.add("fruit", FRUIT) == 0
    assert index.list()[0].documents == 3


def test_changed_text_replaces_the_document(index: Index) -> None:
    changed = replace(FRUIT[0], text="Apples keep well in a cool cellar.")
    assert index.add("fruit", [changed, *FRUIT[1:]]) == 1
    assert found(index, "cellar", "fruit", top_k=1) == ["apple"]
    assert index.search("autumn", None, ["fruit"], 1)[0].bm25 == 0.0
    assert index.document("fruit", "apple") == changed
    assert (index.list()[0].documents, index.list()[0].passages) == (3, 3)


def test_progress_counts_every_document(tmp_path: Path) -> None:
    index = Index(tmp_path, bag_of_words)
    index.add("fruit", FRUIT[:2])
    seen: list[int] = []
    assert index.add("fruit", FRUIT, progress=seen.append) == 1
    assert seen == [1, 2, 3]


def test_reopening_sees_everything(index: Index, tmp_path: Path) -> None:
    again = Index(tmp_path / "index", bag_of_words)
    assert again.search("bananas", None, ["fruit"], 3) == index.search(
        "bananas", None, ["fruit"], 3
    )
    assert again.list() == index.list()


def test_an_open_index_follows_writes_of_another(index: Index, tmp_path: Path) -> None:
    assert "date" not in found(index, "dates from palms", "fruit")
    other = Index(tmp_path / "index", bag_of_words)
    other.add("fruit", [Document("date", "Dates", "Dates are the fruit of palms.")])
    assert found(index, "dates from palms", "fruit")[0] == "date"
    other.remove("fruit", "date")
    assert "date" not in found(index, "dates from palms", "fruit")


def test_a_collection_made_anew_is_followed(index: Index, tmp_path: Path) -> None:
    other = Index(tmp_path / "index", bag_of_words)
    other.remove("fruit")
    with pytest.raises(MissingCollection):
        found(index, "apples", "fruit")
    other.add("fruit", [Document("elder", "Elder", "Elderberries are cooked first.")])
    assert found(index, "apples", "fruit") == ["elder"]


def test_several_collections_are_ranked_together(index: Index) -> None:
    index.add("tools", [Document("saw", "Saws", "A pruning saw cuts branches of cherry trees.")])
    hits = index.search("pruning saw", None, ["fruit", "tools", "fruit"], 10)
    assert hits[0].collection == "tools"
    assert len({(hit.collection, hit.passage_id) for hit in hits}) == len(hits) == 4


def test_no_collections_find_nothing(index: Index) -> None:
    assert index.search("apples", None, [], 3) == []


def test_chinese_and_accents_are_found_by_words(index: Index) -> None:
    index.add("world", [Document("zh", "合同", "合同可以由双方协商解除。")])
    index.add("world", [Document("fr", "Café", "Le café est préparé à la maison.")])
    assert index.search("解除", None, ["world"], 1)[0].document_id == "zh"
    assert index.search("CAFE prepare", None, ["world"], 1)[0].document_id == "fr"


@pytest.mark.parametrize(
    "query", ['"', "a AND", "NEAR(x", "title:x", "*", "()", "\ud800", "", "x" * 5000, "क्षत्रिय ﷽ ꧁"]
)
def test_no_query_text_breaks_the_search(index: Index, query: str) -> None:
    assert len(index.search(query, bag_of_words(["x"])[0], ["fruit"], 2)) == 2


@pytest.mark.parametrize("name", ["", "../x", "a/b", "A", "-a", "a.b", "x" * 64, "a\n", "ä"])
def test_unsafe_names_are_refused_everywhere(index: Index, tmp_path: Path, name: str) -> None:
    before = sorted(tmp_path.rglob("*"))
    for use in (
        lambda: index.add(name, FRUIT),
        lambda: index.remove(name),
        lambda: index.search("x", None, [name], 1),
        lambda: index.document(name, "apple"),
    ):
        with pytest.raises(InvalidName, match="cannot name a collection"):
            use()
    assert sorted(tmp_path.rglob("*")) == before


def test_a_missing_collection_is_named_with_those_that_exist(index: Index) -> None:
    with pytest.raises(MissingCollection, match=r"'meat'.*fruit"):
        index.search("x", None, ["fruit", "meat"], 1)
    with pytest.raises(MissingCollection, match="'meat'"):
        index.remove("meat")


def test_a_missing_document_is_named(index: Index) -> None:
    with pytest.raises(MissingDocument, match="'kiwi'"):
        index.remove("fruit", "kiwi")
    with pytest.raises(MissingDocument, match="'kiwi'"):
        index.document("fruit", "kiwi")


def test_another_encoder_is_refused(index: Index, tmp_path: Path) -> None:
    def mirrored(texts: Sequence[str]) -> npt.NDArray[np.float32]:
        return bag_of_words(texts)[:, ::-1]

    def shorter(texts: Sequence[str]) -> npt.NDArray[np.float32]:
        return np.ones((len(texts), 1), dtype=np.float32)

    for encoder in (mirrored, shorter):
        other = Index(tmp_path / "index", encoder)
        with pytest.raises(EncoderMismatch, match="'fruit'"):
            other.add("fruit", FRUIT)
        with pytest.raises(EncoderMismatch, match="'fruit'"):
            other.search("x", None, ["fruit"], 1)


@pytest.mark.parametrize("vector", [[1.0, 2.0], [[1.0] * DIMENSIONS], [float("nan")] * DIMENSIONS])
def test_a_wrong_query_vector_is_refused(index: Index, vector: npt.ArrayLike) -> None:
    with pytest.raises(InvalidQuery, match="vector|shape"):
        index.search("x", vector, ["fruit"], 1)


def test_top_k_below_one_is_refused(index: Index) -> None:
    with pytest.raises(InvalidQuery, match="top_k"):
        index.search("x", None, ["fruit"], 0)


def test_a_damaged_file_is_reported(index: Index, tmp_path: Path) -> None:
    folder = tmp_path / "index" / "broken"
    folder.mkdir()
    (folder / "collection.sqlite").write_bytes(b"not a database, but long enough to be read" * 40)
    with pytest.raises(CorruptCollection, match="'broken'"):
        index.search("x", None, ["broken"], 1)


def test_a_copied_collection_is_a_collection(index: Index, tmp_path: Path) -> None:
    index.close()
    shutil.copytree(tmp_path / "index" / "fruit", tmp_path / "index" / "copy")
    assert found(index, "bananas", "copy")[0] == "banana"


@pytest.mark.parametrize(
    ("field", "value"),
    [("id", ""), ("id", "x" * 513), ("text", " \n"), ("text", "a\0b"), ("title", "\ud800")],
)
def test_documents_that_cannot_be_stored_are_refused(field: str, value: str) -> None:
    with pytest.raises(InvalidDocument):
        replace(FRUIT[0], **{field: value})


def test_long_markdown_is_found_by_its_heading(index: Index) -> None:
    text = (
        "# Guide\n\n" + "Filler words here. " * 80 + "\n\n## Grafting\n\n" + "Bind the scion. " * 60
    )
    index.add("guide", [Document("g", "Garden", text, format=TextFormat.MARKDOWN)])
    hit = index.search("grafting", None, ["guide"], 1)[0]
    assert "scion" in hit.text
    assert text[hit.start : hit.end] == hit.text


def test_searches_and_writes_in_threads_agree(index: Index) -> None:
    failures: list[BaseException] = []

    def search() -> None:
        for _ in range(40):
            hits = index.search("ripe cherries", None, ["fruit"], 2)
            if hits[0].document_id != "cherry":
                failures.append(AssertionError(hits))

    threads = [threading.Thread(target=search) for _ in range(4)]
    for thread in threads:
        thread.start()
    for n in range(30):
        index.add("fruit", [Document(f"plum{n}", "Plum", f"Plum number {n} is purple.")])
    for thread in threads:
        thread.join()
    assert not failures
    assert index.list()[0].documents == 33
