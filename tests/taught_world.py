"""A trained gate over the small world of words, and domains that it was not trained for."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt
from routing_data import gate as trained_gate
from routing_data import word_vectors

from router.dataset import LabelledPrompt
from router.gate import Gate
from router.teaching import example_features

DOMAINS = {
    "medical": "fever pulse clinic surgery dose symptom".split(),
    "finance": "stock dividend loan interest budget fund".split(),
    "garden": "seed soil pruning lawn tulip compost".split(),
}


@cache
def world() -> Gate:
    """The gate of four experts, with a background."""
    return trained_gate()


def questions(domain: str, count: int, seed: int = 0) -> list[str]:
    """Prompts of three words of the domain and a number."""
    dice = np.random.default_rng([seed, len(domain)])
    return [
        " ".join(str(word) for word in dice.choice(DOMAINS[domain], 3, replace=False))
        + f" {dice.integers(100_000)}"
        for _ in range(count)
    ]


def features(texts: list[str]) -> npt.NDArray[np.float32]:
    """Joined features of prompts."""
    return example_features(texts, word_vectors)


def features_of(rows: list[LabelledPrompt]) -> npt.NDArray[np.float32]:
    """Joined features of labelled prompts."""
    return features([row.text for row in rows])
