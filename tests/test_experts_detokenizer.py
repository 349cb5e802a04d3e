"""Text that leaves token by token equals the text decoded at once, and stops where it must."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from experts.detokenizer import Detokenizer

pytestmark = pytest.mark.models

TEXT = (
    "Grüße aus Zürich: 你好，世界！ Привет 👩‍👩‍👧 naïve café — “quoted” ١٢٣ हिन्दी 🇩🇪\n"
    "def f(x):\n    return x ** 2  # двойка\n\tTabs, spaces   and the END."
)


@pytest.fixture(scope="module")
def tokenizer(base_dir: Path) -> Any:  # noqa: ANN401
    return AutoTokenizer.from_pretrained(base_dir)


@pytest.fixture(scope="module")
def byte_tokens(tokenizer: Any) -> dict[int, int]:  # noqa: ANN401
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    named = {byte: tokenizer.convert_tokens_to_ids(c) for byte, c in bytes_to_unicode().items()}
    return {byte: token for byte, token in named.items() if token is not None}


def tokens_in_random_cuts(tokenizer: Any, text: str, seed: int) -> list[int]:  # noqa: ANN401
    """Tokens as no tokenizer would choose them: the text is encoded piece by piece."""
    rng = random.Random(seed)
    cuts = sorted(rng.sample(range(1, len(text)), k=len(text) // 3))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    return [t for piece in pieces for t in tokenizer.encode(piece, add_special_tokens=False)]


def released(detokenizer: Detokenizer, tokens: Sequence[int]) -> list[str]:
    pieces = []
    for token in tokens:
        pieces.append(detokenizer.push(token))
        if detokenizer.stopped:
            break
    return [*pieces, detokenizer.flush()]


@pytest.mark.parametrize("seed", range(20))
def test_pieces_add_up_to_the_text_decoded_at_once(tokenizer: Any, seed: int) -> None:  # noqa: ANN401
    tokens = tokens_in_random_cuts(tokenizer, TEXT, seed)
    pieces = released(Detokenizer(tokenizer), tokens)
    assert "".join(pieces) == tokenizer.decode(tokens, skip_special_tokens=True) == TEXT
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)


def test_single_bytes_come_out_as_whole_characters(
    tokenizer: Any,  # noqa: ANN401
    byte_tokens: dict[int, int],
) -> None:
    text = "é你👍x"
    assert set(text.encode()) <= set(byte_tokens)
    pieces = released(Detokenizer(tokenizer), [byte_tokens[byte] for byte in text.encode()])
    assert [piece for piece in pieces if piece] == ["é", "你", "👍", "x"]


def test_a_character_that_never_ends_is_released_at_the_end(
    tokenizer: Any,  # noqa: ANN401
    byte_tokens: dict[int, int],
) -> None:
    tokens = [*tokenizer.encode("ok", add_special_tokens=False), byte_tokens[0xF0]]
    pieces = released(Detokenizer(tokenizer), tokens)
    assert pieces[-1] == "\N{REPLACEMENT CHARACTER}"
    assert "".join(pieces) == tokenizer.decode(tokens)


def test_text_without_stop_strings_is_not_held_back(tokenizer: Any) -> None:  # noqa: ANN401
    tokens = tokenizer.encode("The quick brown fox.", add_special_tokens=False)
    pieces = released(Detokenizer(tokenizer, stop=["###"]), tokens)
    assert pieces == [*(tokenizer.decode([token]) for token in tokens), ""]


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize(
    "stops",
    [
        ("END",),
        ("return x ** 2",),
        ("世界！",),
        ("\n",),
        ("zz", "def f(x):\n    return"),
        ("🇩🇪\nd",),
    ],
)
def test_a_stop_string_across_tokens_ends_the_text_before_it(
    tokenizer: Any,  # noqa: ANN401
    stops: tuple[str, ...],
    seed: int,
) -> None:
    tokens = tokens_in_random_cuts(tokenizer, TEXT, seed)
    detokenizer = Detokenizer(tokenizer, stops)
    pieces = released(detokenizer, tokens)
    expected = TEXT[: min(TEXT.index(stop) for stop in stops if stop in TEXT)]
    assert detokenizer.stopped
    assert "".join(pieces) == expected
    for n in range(len(pieces)):
        assert expected.startswith("".join(pieces[: n + 1]))


def test_a_beginning_of_a_stop_string_is_held_until_it_is_none(tokenizer: Any) -> None:  # noqa: ANN401
    detokenizer = Detokenizer(tokenizer, ["abcd"])
    said = [detokenizer.push(tokenizer.convert_tokens_to_ids(c)) for c in "xababcab"]
    assert said == ["x", "", "", "ab", "", "", "abc", ""]
    assert detokenizer.flush() == "ab" and not detokenizer.stopped


def test_a_stop_string_that_ends_beside_an_unfinished_character_is_not_emitted(
    tokenizer: Any,  # noqa: ANN401
) -> None:
    # "Ġâ" is one token: a space and the first byte of many punctuation marks.
    token = tokenizer.convert_tokens_to_ids("Ġâ")
    assert tokenizer.decode([token]) == " \N{REPLACEMENT CHARACTER}"
    detokenizer = Detokenizer(tokenizer, [" "])
    assert detokenizer.push(tokenizer.convert_tokens_to_ids("x")) == "x"
    assert detokenizer.push(token) == ""
    assert detokenizer.flush() == ""
    assert detokenizer.stopped


def test_special_tokens_have_no_text_but_a_name(tokenizer: Any) -> None:  # noqa: ANN401
    detokenizer = Detokenizer(tokenizer)
    tokens = tokenizer.encode("Hi<|im_end|> there", add_special_tokens=False)
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") in tokens
    assert "".join(released(detokenizer, tokens)) == "Hi there"
    assert detokenizer.text_of(tokens[1]) == "<|im_end|>"


def test_empty_stop_strings_mean_nothing(tokenizer: Any) -> None:  # noqa: ANN401
    tokens = tokenizer.encode("Hello", add_special_tokens=False)
    assert "".join(released(Detokenizer(tokenizer, [""]), tokens)) == "Hello"
