"""Prompts said otherwise for training: the label stays, and nothing speaks for another one."""

from router import augment
from router.augment import stories, varied
from router.dataset import LabelledPrompt
from router.parts import parts

NAMES = ("code", "general", "legal", "multilingual")


def row(number: int, label: str = "legal", language: str = "en") -> LabelledPrompt:
    text = f"Is clause {number} of this lease binding for the tenant?"
    return LabelledPrompt(text, (label,), language, "s", "MIT")


def tells_a_story(text: str) -> bool:
    flat = " ".join(text.split())
    return any(story in flat for story in augment._STORIES)


def test_every_row_is_said_otherwise_twice_and_keeps_its_labels() -> None:
    rows = [row(n) for n in range(60)]
    found = varied(rows, NAMES, seed=1)
    assert len(found) == 2 * len(rows)
    assert all(one.labels == ("legal",) for one in found)
    # Slips are left to chance, so a short prompt may come out unharmed.
    assert sum(one.text == row(n // 2).text for n, one in enumerate(found)) <= 6
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
    beside = [text for text in rest if any(text.endswith(f"\n{end}") for end in original)]
    assert beside and not any("legal" in text for text in beside)


def test_stories_alone_belong_to_the_generalist() -> None:
    found = stories("base", seed=0)
    assert len(found) > 100 and len({one.text for one in found}) == len(found)
    assert all(one.labels == ("base",) and tells_a_story(one.text) for one in found)
