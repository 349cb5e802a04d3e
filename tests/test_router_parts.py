"""Long texts are read in parts, and what a part says is not watered down by the rest."""

import numpy as np
import pytest

from router.features import featurize
from router.gate import Gate
from router.parts import HEAD_CHARACTERS, TAIL_CHARACTERS, WHOLE_CHARACTERS, clean, parts, strongest
from router.router import Router
from router.surface import SURFACE_DIMENSIONS
from tests.routing_data import word_vectors

LABELS = ("code", "general", "legal")


def test_a_short_text_is_one_part() -> None:
    assert parts("a" * WHOLE_CHARACTERS) == ("a" * WHOLE_CHARACTERS,)


def test_a_long_text_is_its_head_and_its_tail() -> None:
    text = "H" * 5_000 + "T" * 5_000
    assert parts(text) == ("H" * HEAD_CHARACTERS, "T" * TAIL_CHARACTERS)


def test_the_last_paragraph_is_a_part_where_it_can_stand_alone() -> None:
    question = "How long may a landlord keep the deposit of a tenant?"
    assert parts("word " * 400 + "\n\n" + question)[1] == question
    signed = parts("word " * 400 + "\n\n" + question + "\n\nBest, Anna")
    assert signed[1] == question + "\n\nBest, Anna"


def test_lone_surrogates_become_encodable() -> None:
    assert clean("a\ud800b").encode("utf-8") == b"a?b"


@pytest.mark.parametrize("fence", ["```", "~~~", "`````"])
def test_a_fence_around_everything_is_not_read(fence: str) -> None:
    assert clean(f"{fence}\nWhat is a tort?\n{fence}\n") == "What is a tort?"


@pytest.mark.parametrize(
    "text",
    [
        "Why?\n```\nx = 1\n```",
        "```python\nx = 1\n```",
        "```\na\n```\nand\n```\nb\n`````",
        "```\n\n```",
    ],
)
def test_other_fences_stay(text: str) -> None:
    assert clean(text) == text


def test_experts_speak_as_for_their_best_part_and_the_generalist_as_for_its_worst() -> None:
    scores = np.array([[-3.0, -0.1, -4.0], [-0.2, -2.0, -5.0], [-1.0, -2.0, -0.5]])
    np.testing.assert_array_equal(
        strongest(scores, [0, 2], [LABELS.index("general")]),
        [[-0.2, -2.0, -4.0], [-1.0, -2.0, -0.5]],
    )
    np.testing.assert_array_equal(
        strongest(scores, [0, 2], []), [[-0.2, -0.1, -4.0], [-1.0, -2.0, -0.5]]
    )


def test_a_question_behind_a_story_is_routed_as_the_question_alone() -> None:
    """Every word of the story speaks for the generalist; the question has one word of law."""
    dimensions = word_vectors(["x"]).shape[1]
    weight = np.zeros((3, dimensions + SURFACE_DIMENSIONS), dtype=np.float32)
    weight[1, :dimensions] = 20 * word_vectors(["story"])[0]
    weight[2, :dimensions] = 20 * word_vectors(["contract"])[0]
    gate = Gate(LABELS, weight, np.array([-5.0, -5.0, -5.0], dtype=np.float32))
    router = Router(gate, word_vectors, LABELS, "general")
    question = "contract contract contract contract contract"
    found = router.route([("user", "story " * 300 + "\n\n" + question)])
    assert router.route([("user", question)]).chosen == found.chosen == ("legal",)
    assert router.route([("user", "story " * 300)]).chosen == ("general",)


def test_a_conversation_has_one_vector_whatever_its_parts() -> None:
    features = featurize([("user", "red " * 400), ("user", "green " * 400)], word_vectors)
    assert features.vectors.shape[0] == features.surfaces.shape[0] == 2
    assert np.linalg.norm(features.vector) == pytest.approx(1.0, abs=1e-5)
