from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from tiny_models import bert
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from retrieval import Document, Index, SearchSettings
from retrieval.encoder import Encoder
from retrieval.fusion import Fusion
from retrieval.reading import legible, trusted


def tokenizer(*pieces: str) -> Tokenizer:
    vocabulary = {piece: n for n, piece in enumerate(["[UNK]", *pieces])}
    made = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return made


def share(text: str, *pieces: str) -> float:
    return legible(tokenizer(*pieces).encode(text), text, "[UNK]")


def test_whole_words_are_read_however_short() -> None:
    assert share("a cherry tree", "a", "cherry", "tree") == 1.0


def test_words_in_long_parts_are_read_and_single_letters_are_not() -> None:
    # "baum" falls into three and one letters, "im" into two times one.
    assert share("baum im", "bau", "##m", "i", "##m") == pytest.approx(3 / 6)


def test_unknown_words_are_not_read() -> None:
    assert share("cherry сад", "cherry") == pytest.approx(6 / 9)


def test_chinese_characters_count_where_they_are_known() -> None:
    assert share("木を切る", "木") == pytest.approx(1 / 4)


def test_numbers_and_signs_alone_are_no_reason_for_doubt() -> None:
    assert share("3 + 4", "3", "4", "+") == share("") == 1.0


def test_trust_multiplies_the_odds_of_meaning() -> None:
    weight = trusted(0.8, 0.5)
    assert weight / (1 - weight) == pytest.approx(0.5 * 0.8 / 0.2)
    assert trusted(0.8, 1.0) == pytest.approx(0.8)
    assert [trusted(edge, 0.1) for edge in (0.0, 1.0)] == [0.0, 1.0]
    assert 0.0 < trusted(0.8, 0.0) < 0.01


def test_an_encoder_tells_what_it_reads(tmp_path: Path) -> None:
    bert(tmp_path)
    encoder = Encoder(tmp_path)
    assert encoder.reads("do i prune a cherry tree") == 1.0
    assert encoder.reads("обрезать вишню") == 0.0
    assert encoder.reads("cherry \ud800 сад") == pytest.approx(6 / 9)


@pytest.mark.models
def test_the_embedded_encoder_reads_english_better_than_other_languages(encoder_dir: Path) -> None:
    reads = Encoder(encoder_dir).reads
    english = reads("How do I change the language of the keyboard?")
    spanish = reads("¿Cómo cambio el idioma del teclado?")
    russian = reads("Как изменить язык клавиатуры?")
    arabic = reads("كيف أغير لغة لوحة المفاتيح؟")
    assert english > 0.9 > spanish > 0.5 > russian
    assert max(russian, arabic) < 0.1


def by_length(texts: Sequence[str]) -> npt.NDArray[np.float32]:
    # The long text is always closest.
    angles = [0.0 if len(text) > 20 else 1.0 for text in texts]
    return np.array([[np.cos(a), np.sin(a)] for a in angles], dtype=np.float32)


@pytest.mark.parametrize(("reads", "first"), [(1.0, "long"), (0.0, "worded")])
def test_what_the_encoder_cannot_read_is_found_by_words(
    tmp_path: Path, reads: float, first: str
) -> None:
    documents = [
        Document("long", "", "a text that has nothing to do with it"),
        Document("worded", "", "вишня"),
    ]
    for other in range(4):
        documents.append(Document(f"other{other}", "", f"orchard {other}"))
    settings = SearchSettings(fusion=Fusion.CONVEX, dense_weight=0.85)
    index = Index(tmp_path, by_length, settings, reads=lambda _text: reads)
    index.add("fruit", documents)
    found = index.search("вишня", np.array([1.0, 0.0]), ["fruit"], 1)
    assert found[0].document_id == first
    (finding,) = index.survey("вишня", np.array([1.0, 0.0]), ["fruit"], 1)
    assert finding.offer.reads == reads
