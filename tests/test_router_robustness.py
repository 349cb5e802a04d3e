"""Transforms change what they say, and nothing else."""

import json
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from routing_data import EXPERTS, gate, prompts, word_vectors

from router.dataset import LabelledPrompt
from router.flips import count_flips, measure_translation, read_parallel, sample
from router.gate import Gate
from router.memory import EncoderMemory
from router.parts import parts
from router.robustness import LETTERS_PER_TYPO, TRANSFORMS, Transform
from router.router import Router

TEXT = "How do I sort a list of names by their second letter in Python without a loop?"


def distance(one: str, other: str) -> int:
    """Edits between two texts, a swap of neighbours counted as one (optimal string alignment)."""
    rows = [list(range(len(other) + 1))]
    for i, a in enumerate(one, start=1):
        row = [i]
        for j, b in enumerate(other, start=1):
            best = min(rows[-1][j] + 1, row[-1] + 1, rows[-1][j - 1] + (a != b))
            if i > 1 and j > 1 and a == other[j - 2] and one[i - 2] == b:
                best = min(best, rows[-2][j - 2] + 1)
            row.append(best)
        rows.append(row)
    return rows[-1][-1]


@pytest.mark.parametrize("name", list(TRANSFORMS))
def test_a_transform_repeats_itself_and_changes_the_text(name: str) -> None:
    transform = TRANSFORMS[name]
    assert transform.apply(TEXT, "legal", seed=3) == transform.apply(TEXT, "legal", seed=3)
    assert transform.apply(TEXT, "legal", seed=3) != TEXT
    assert transform.what


@pytest.mark.parametrize("name", [name for name in TRANSFORMS if "case" not in name][1:])
def test_wrappers_leave_the_text_itself_as_it_is(name: str) -> None:
    for seed in range(20):
        assert TEXT in TRANSFORMS[name].apply(TEXT, "legal", seed)


def test_typos_come_one_for_every_twelve_letters_and_touch_only_letters() -> None:
    letters = sum(character.isalpha() for character in TEXT)
    allowed = round(letters / LETTERS_PER_TYPO)
    for seed in range(50):
        typed = TRANSFORMS["typos"].apply(TEXT, "", seed)
        assert 1 <= distance(TEXT, typed) <= allowed
        assert sum(c in "?" for c in typed) == 1


def test_every_kind_of_slip_occurs() -> None:
    slips = {TRANSFORMS["typos"].apply("abcdef", "", seed) for seed in range(300)}
    assert "abdcef" in slips
    assert "abdef" in slips
    assert "abccdef" in slips
    assert slips & {"abxdef", "abvdef"}
    assert max(distance("abcdef", slip) for slip in slips) == 1


def test_typos_keep_other_scripts_and_single_letters_alive() -> None:
    for text in ("Здравствуйте, как дела?", "你好吗", "x", "?!", "क्या हाल है"):
        for seed in range(20):
            assert TRANSFORMS["typos"].apply(text, "", seed).strip()


def test_case_changes_case_alone() -> None:
    assert TRANSFORMS["lower case"].apply(TEXT, "") == TEXT.lower()
    assert TRANSFORMS["upper case"].apply(TEXT, "") == TEXT.upper()
    mixed = TRANSFORMS["random case"].apply(TEXT, "")
    assert mixed.casefold() == TEXT.casefold()
    assert mixed not in (TEXT.lower(), TEXT.upper())


def test_a_fence_is_longer_than_any_within() -> None:
    assert TRANSFORMS["code fence"].apply("plain", "") == "```\nplain\n```"
    assert TRANSFORMS["code fence"].apply("a ```` b", "") == "`````\na ```` b\n`````"


def test_the_prefix_has_about_300_words() -> None:
    added = TRANSFORMS["long prefix"].apply("question", "").removesuffix("question")
    assert 280 <= len(added.split()) <= 330


def test_injections_name_the_wrong_expert_before_or_behind_in_several_wordings() -> None:
    before = {TRANSFORMS["injected before"].apply(TEXT, "poetry", seed) for seed in range(60)}
    after = {TRANSFORMS["injected after"].apply(TEXT, "poetry", seed) for seed in range(60)}
    assert len(before) == len(after) >= 5
    assert all(text.endswith(TEXT) and text.count("poetry") == 1 for text in before)
    assert all(text.startswith(TEXT) and text.count("poetry") == 1 for text in after)


@pytest.fixture(scope="module")
def trained() -> Gate:
    return gate()


def routed(trained: Gate) -> tuple[Router, EncoderMemory]:
    memory = EncoderMemory(word_vectors)
    return Router(trained, memory, EXPERTS, "general"), memory


def test_a_transform_that_changes_nothing_flips_nothing(trained: Gate) -> None:
    router, memory = routed(trained)
    same = {"same": Transform("same", "nothing", lambda text, _dice, _wrong: text)}
    found = count_flips(router, memory, prompts(40), transforms=same)["same"]
    assert (found.flipped.value, found.flipped.high, found.rows) == (0.0, 0.0, 40)
    assert found.examples == ()


def test_a_router_that_obeys_orders_flips_and_the_wrong_expert_never_was_right(
    trained: Gate,
) -> None:
    router, memory = routed(trained)
    words = {"code": "compile debug loop", "legal": "court tenant clause", "general": "cake joke"}
    words["multilingual"] = "hola danke ciao"
    said: list[tuple[str, str]] = []

    def obey(text: str, _dice: random.Random, wrong: str) -> str:
        said.append((text, wrong))
        return words[wrong]

    rows = [row for row in prompts(40) if len(row.labels) == 1]
    changed = {"obey": Transform("obey", "another question altogether", obey)}
    found = count_flips(router, memory, rows, transforms=changed)["obey"]
    labels = {row.text: row.labels for row in rows}
    assert all(wrong not in labels[text] for text, wrong in said)
    assert found.flipped.value == 1.0
    assert found.single == found.flipped
    assert found.by_domain == dict.fromkeys(EXPERTS, 1.0)
    assert len(found.examples) == 3
    assert found.examples[0][1] != found.examples[0][2]


def test_a_sample_takes_the_same_rows_of_every_domain() -> None:
    rows = prompts(200)
    found = sample(rows, 5, seed=1)
    counts = {name: 0 for name in (*EXPERTS, "mixed")}
    for row in found:
        counts[row.labels[0] if len(row.labels) == 1 else "mixed"] += 1
    assert set(counts.values()) == {5}
    assert found == sample(list(reversed(rows)), 5, seed=1)
    assert found != sample(rows, 5, seed=2)


def line(name: str, language: str, text: str, *labels: str) -> str:
    fields = {"id": name, "lang": language, "prompt": text, "domains": list(labels)}
    return json.dumps(fields)


def test_translations_are_found_by_their_ids_and_keep_their_expert(
    trained: Gate, tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    lines = [
        line("faq-en-1", "en", "function loop", "code"),
        line("faq-nl-1", "nl", "function loop compile hola danke", "code", "multilingual"),
        line("faq-fr-1", "fr", "bonjour ciao danke", "code", "multilingual"),
        line("faq-fr-2", "fr", "bonjour loop", "code", "multilingual"),
        line("free", "en", "loop loop", "code"),
        json.dumps({"prompt": "no id", "domain": "code"}),
        "",
    ]
    path.write_text("\n".join(lines), encoding="utf-8")
    parallel = read_parallel([path])
    assert [(row.language, label) for row, label in parallel] == [("nl", "code"), ("fr", "code")]
    router, memory = routed(trained)
    found = measure_translation(router, memory, parallel)
    assert found is not None
    assert (found.rows, found.kept.value) == (2, 0.5)
    assert found.by_language == {"nl": 1.0, "fr": 0.0}
    assert measure_translation(router, memory, []) is None


def test_what_was_learnt_is_not_encoded_again() -> None:
    calls: list[str] = []

    def counting(texts: Sequence[str]) -> npt.NDArray[np.float32]:
        calls.extend(texts)
        return word_vectors(texts)

    memory = EncoderMemory(counting)
    memory.learn(["one two", "one two", "three"])
    found = memory(["three", "four", "one two"])
    np.testing.assert_array_equal(found, word_vectors(["three", "four", "one two"]))
    memory.learn(["four"])
    assert calls == ["one two", "three", "four"]


def test_the_memory_learns_long_prompts_as_routing_asks_for_them(trained: Gate) -> None:
    calls: list[str] = []

    def counting(texts: Sequence[str]) -> npt.NDArray[np.float32]:
        calls.extend(texts)
        return word_vectors(texts)

    memory = EncoderMemory(counting)
    long = LabelledPrompt("word " * 1000, ("code",), "en", "s", "MIT")
    memory.learn([long.text])
    Router(trained, memory, EXPERTS, "general").route([("user", long.text)])
    assert len(calls) == len(parts(long.text)) == 2
