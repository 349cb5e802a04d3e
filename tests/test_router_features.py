import hashlib
import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest

from router.features import (
    HISTORY_SHARE,
    ConversationError,
    featurize,
    shares,
)
from router.surface import HASH_DIMENSIONS, STATISTICS, SURFACE_DIMENSIONS, ngrams, surface

TEXTS = ["Hello world", "¿Qué hora es?", "def f(x):\n    return x", "你好，世界", "", "a", "🙂🙂"]


def word_vectors(texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """A small encoder: one fixed random direction a word."""
    rows = []
    for text in texts:
        total = np.zeros(32)
        for word in text.casefold().split():
            seed = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=4).digest(), "big")
            total += np.random.default_rng(seed).normal(size=32)
        rows.append(total / max(float(np.linalg.norm(total)), 1e-9))
    return np.asarray(rows, dtype=np.float32)


def splitmix(value: int) -> int:
    mask = 2**64 - 1
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & mask
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & mask
    return value ^ (value >> 31)


def slow_ngrams(text: str) -> npt.NDArray[np.float64]:
    """The same hash in plain integers."""
    multipliers = (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0xD6E8FEB86659FD93)
    padded = f" {' '.join(text.casefold().split())} "
    sums = np.zeros(HASH_DIMENSIONS)
    for length in (2, 3, 4):
        for start in range(len(padded) - length + 1):
            mixed = length
            for position, character in enumerate(padded[start : start + length]):
                mixed = (mixed + (ord(character) + 1) * multipliers[position]) % 2**64
                mixed ^= mixed >> 29
            hashed = splitmix(mixed)
            sums[hashed % HASH_DIMENSIONS] += 1 if hashed >> 63 else -1
    damped = np.sign(sums) * np.sqrt(np.abs(sums))
    return np.asarray(damped / np.linalg.norm(damped))


@pytest.mark.parametrize("text", ["Hello world", "¿Qué hora es?", "你好世界", "a"])
def test_hashed_ngrams_equal_plain_integer_arithmetic(text: str) -> None:
    np.testing.assert_allclose(ngrams(text), slow_ngrams(text), atol=1e-6)


@pytest.mark.parametrize("text", TEXTS)
def test_the_surface_is_finite_bounded_and_of_fixed_length(text: str) -> None:
    row = surface(text)
    assert row.shape == (SURFACE_DIMENSIONS,)
    assert np.isfinite(row).all()
    assert np.linalg.norm(row[:HASH_DIMENSIONS]) == pytest.approx(1.0 if text else 0.0, abs=1e-6)
    assert (row[-STATISTICS:] >= 0).all() and (row[-STATISTICS:] <= 1).all()


def test_the_surface_is_the_same_in_another_process() -> None:
    code = "import hashlib; from router.surface import surface; import sys; "
    code += "sys.stdout.write(hashlib.sha256(surface('¿Qué? def').tobytes()).hexdigest())"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == hashlib.sha256(surface("¿Qué? def").tobytes()).hexdigest()


def test_case_and_spacing_do_not_change_the_ngrams() -> None:
    np.testing.assert_array_equal(ngrams("Hello   World\n"), ngrams("hello world"))


def test_the_case_of_letters_changes_nothing() -> None:
    text = "Why is `SELECT` Slow in PostgreSQL? Пожалуйста, помогите."
    np.testing.assert_array_equal(surface(text.upper()), surface(text.lower()))


def test_a_single_message_has_the_whole_share() -> None:
    assert shares([("user", "Hello")]) == (("Hello", 1.0),)


def test_the_last_user_message_dominates_and_earlier_turns_are_heard() -> None:
    long = "How do I sort a list of dictionaries by the value of one of the keys?"
    messages = [("user", "first"), ("assistant", "noise"), ("user", "second"), ("user", long)]
    (last, most), (history, least) = shares(messages)
    assert (last, history) == (long, "second\nfirst")
    assert (most, least) == (1.0 - HISTORY_SHARE, HISTORY_SHARE)


def test_a_short_message_leans_more_on_history() -> None:
    history_share = shares([("user", "How do I read a file?"), ("user", "And in Java?")])[1][1]
    assert HISTORY_SHARE < history_share < 0.5


def test_system_and_assistant_texts_are_not_heard_beside_the_user() -> None:
    alone = featurize([("user", "hi there")], word_vectors)
    among = featurize([("system", "Be a lawyer."), ("user", "hi there")], word_vectors)
    np.testing.assert_array_equal(alone.joined(), among.joined())


def test_without_a_user_message_the_last_text_is_read() -> None:
    assert shares([("system", "a"), ("developer", "b")]) == (("b", 1.0),)


@pytest.mark.parametrize("messages", [[], [("user", "")], [("user", " \n"), ("system", "")]])
def test_a_conversation_without_text_is_refused(messages: list[tuple[str, str]]) -> None:
    with pytest.raises(ConversationError, match="messages"):
        featurize(messages, word_vectors)


def test_the_conversation_vector_is_the_unit_mean_of_its_parts() -> None:
    features = featurize([("user", "red green"), ("user", "blue")], word_vectors)
    assert features.vectors.shape[0] == 1
    (_, most), (_, least) = shares([("user", "red green"), ("user", "blue")])
    blue, earlier = word_vectors(["blue", "red green"])
    expected = most * blue + least * earlier
    np.testing.assert_allclose(features.vector, expected / np.linalg.norm(expected), atol=1e-6)
    assert np.linalg.norm(features.vector) == pytest.approx(1.0, abs=1e-6)


def test_routing_imports_neither_torch_nor_ray() -> None:
    code = "import sys, router, router.training; sys.exit(bool({'torch','ray'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
