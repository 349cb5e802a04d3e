"""Prompts said otherwise for training: the label stays, and nothing speaks for another one."""

import re
from collections.abc import Iterable

import numpy as np
from routing_data import word_vectors

from router import robustness
from router.ablation import FOLLOW_UPS
from router.augment import stories, varied
from router.dataset import LabelledPrompt
from router.features import featurize
from router.follow_ups import SHARE, followed, read_followed
from router.parts import parts
from router.phrases import FITTED, TRIED

NAMES = ("code", "general", "legal", "multilingual")


def row(number: int, label: str = "legal", language: str = "en") -> LabelledPrompt:
    text = f"Is clause {number} of this lease binding for the tenant?"
    return LabelledPrompt(text, (label,), language, "s", "MIT")


def tells_a_story(text: str) -> bool:
    flat = " ".join(text.split())
    return any(story in flat for story in FITTED.stories)


def test_every_row_is_said_otherwise_and_told_or_ordered_elsewhere_once() -> None:
    rows = [row(n) for n in range(60)]
    found = varied(rows, NAMES, seed=1)
    assert all(one.labels == ("legal",) for one in found)
    for each in rows:
        number = re.findall(r"\d+", each.text)[0]
        own = [one.text for one in found if re.search(rf"\b{number}\b", one.text)]
        whole = [text for text in own if each.text in text and text != each.text]
        told = [text for text in whole if tells_a_story(text)]
        ordered = [
            text
            for text in whole
            if text not in told
            and any(name in text.replace(each.text, "") for name in ("code", "general", "multi"))
        ]
        assert len(told) == 1 or ordered
    assert len(found) == 2 * len(rows)
    assert found == varied(rows, NAMES, seed=1) != varied(rows, NAMES, seed=2)


def test_stories_stand_before_english_prompts_alone() -> None:
    english = varied([row(n) for n in range(60)], NAMES, seed=1)
    spanish = varied([row(n, language="es") for n in range(60)], NAMES, seed=1)
    assert sum(tells_a_story(one.text) for one in english) > 10
    assert not any(tells_a_story(one.text) for one in spanish)


def test_a_story_never_becomes_a_part_of_its_own() -> None:
    rows = [LabelledPrompt("word " * n, ("code",), "en", "s", "MIT") for n in range(20, 200)]
    told = [one.text for one in varied(rows, NAMES, seed=3) if tells_a_story(one.text)]
    assert told and all(len(parts(text)) == 1 for text in told)


def test_orders_name_an_expert_that_is_not_the_rows() -> None:
    found = varied([row(n) for n in range(200)], NAMES, seed=1)
    original = {row(n).text for n in range(200)}
    rest = [one.text for one in found if not tells_a_story(one.text)]
    beside = [text for text in rest for end in original if text.endswith(end) and text != end]
    fronts = [text[: text.index("Is clause")] for text in beside]
    assert len(fronts) > 50 and not any("legal" in front for front in fronts)
    assert len(set(fronts)) > 40


def test_stories_alone_belong_to_the_generalist() -> None:
    found = stories("base", seed=0)
    assert len(found) > 100 and len({one.text for one in found}) == len(found)
    assert all(one.labels == ("base",) and tells_a_story(one.text) for one in found)


def runs(texts: Iterable[str], length: int) -> set[tuple[str, ...]]:
    """All runs of so many words."""
    words = [re.findall(r"\w+", text.casefold()) for text in texts]
    return {
        tuple(one[start : start + length])
        for one in words
        for start in range(len(one) - length + 1)
    }


def test_what_robustness_is_measured_with_is_not_learned_by_heart() -> None:
    fitted, tried = (
        [order for kind in phrases.orders for order in kind] for phrases in (FITTED, TRIED)
    )
    assert len(fitted) > 1000
    for one, other in (
        (fitted, robustness._INJECTIONS),
        (tried, robustness._INJECTIONS),
        (fitted, tried),
        ((*FITTED.before, *FITTED.after), robustness._PARAPHRASES),
        ((*FITTED.before, *FITTED.after), robustness._POLITE_BEFORE + robustness._POLITE_AFTER),
        ((*FITTED.before, *FITTED.after), TRIED.before + TRIED.after),
    ):
        assert not runs(one, 4) & runs(other, 4)
    for told in (TRIED.stories, (robustness._PREAMBLE,)):
        assert not runs(FITTED.stories, 6) & runs(told, 6)


def test_follow_ups_that_are_measured_are_not_fitted_to() -> None:
    fitted = {text.casefold() for texts in FITTED.follow_ups.values() for text in texts}
    assert not fitted & {text.casefold() for text in FOLLOW_UPS}


def test_a_follow_up_has_the_labels_of_what_it_follows() -> None:
    rows = [row(n, "legal" if n % 2 else "code") for n in range(600)]
    found = followed(rows, seed=1)
    assert abs(len(found) / len(rows) - SHARE) < 0.08
    for one, (before, said) in found:
        assert before == one.text and said in FITTED.follow_ups["en"]
    assert found == followed(rows, seed=1) != followed(rows, seed=2)


def test_follow_ups_are_in_the_language_of_their_prompt() -> None:
    german = followed([row(n, language="de") for n in range(80)], seed=0)
    assert german
    assert all(said in FITTED.follow_ups["de"] for _, (_, said) in german)
    assert not followed([row(n, language="ja") for n in range(80)], seed=0)
    assert not followed([LabelledPrompt("long " * 300, ("code",), "en", "s", "MIT")] * 9, seed=0)


def test_conversations_are_read_as_the_router_reads_them() -> None:
    told = [(row(1), (row(1).text, "and now?")), (row(2), (row(3).text, row(2).text))]
    found = read_followed(told, word_vectors)
    for (_, (before, said)), features in zip(told, found.features, strict=True):
        turns = [("user", before), ("assistant", "Yes."), ("user", said)]
        np.testing.assert_array_equal(featurize(turns, word_vectors).joined()[0], features)
