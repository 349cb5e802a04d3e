import pytest

from retrieval.words import content_words, query_terms, query_words, words


def test_words_are_folded() -> None:
    assert list(words("Größe, CAFÉ and ﬁne—naïve Ⅷ")) == [
        "grosse",
        "cafe",
        "and",
        "fine",
        "naive",
        "viii",
    ]


def test_identifiers_are_split_and_language_names_kept() -> None:
    assert list(words("os.path.join(my_file) in C++ or C#")) == [
        *("os", "path", "join", "my", "file", "in", "c++", "or", "c#")
    ]


def test_scripts_without_spaces_give_pairs() -> None:
    assert list(words("解除合同 A 字")) == ["解除", "除合", "合同", "a", "字"]


def test_hindi_words_keep_their_vowel_signs() -> None:
    assert list(words("हिन्दी भाषा।")) == ["हिन्दी", "भाषा"]


@pytest.mark.parametrize(
    "forms",
    [
        ("license", "licenses", "licensed", "licensing"),
        ("copy", "copies"),
        ("distribute", "distributed", "distribution", "distributions"),
        ("run", "runs", "running"),
        ("class",),
        ("status",),
    ],
)
def test_forms_of_a_word_share_a_stem(forms: tuple[str, ...]) -> None:
    assert len({frozenset(content_words(form)) for form in forms}) == 1


def test_stop_words_are_dropped_unless_nothing_else_is_asked() -> None:
    assert query_words("What is the GPL and the GPL", 9) == ["gpl"]
    assert query_words("to be or not to be", 9) == ["to", "be", "or", "not"]
    assert query_words("alpha beta gamma", 2) == ["alpha", "beta"]
    assert content_words("it is 42") == {"42"}


def test_terms_are_words_twice_and_telling_neighbours_once() -> None:
    assert query_terms("the use of sort keys in a list", 9) == [
        *("sort", "keys", "list") * 2,
        *("of sort", "sort keys", "keys in", "a list"),
    ]
    assert query_terms("to be or not", 9) == ["to", "be", "or", "not"] * 2
    assert query_terms("alpha beta gamma delta", 2) == ["alpha", "beta"] * 2 + [
        *("alpha beta", "beta gamma")
    ]
    # Neighbouring pairs of characters are three characters.
    assert query_terms("機械学習", 9)[-2:] == ["機械 械学", "械学 学習"]


def test_names_that_are_stop_words_elsewhere_are_kept() -> None:
    assert query_words("What does the MIT license require of os and die?", 9) == [
        *("mit", "license", "require", "os", "die")
    ]
    assert {"mit", "os"} <= content_words("the MIT license of os")
