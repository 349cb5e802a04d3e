"""A small world to route in: words of four domains, an encoder that knows them, and gates."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from router.dataset import LabelledPrompt, fingerprint
from router.features import feature_dimensions
from router.gate import Gate
from router.losses import AnswerLoss, LossTable
from router.training import train_gate

WORDS = {
    "code": "function loop compile array pointer debug".split(),
    "legal": "contract court statute liability clause tenant".split(),
    "multilingual": "hola danke bonjour spasibo obrigado ciao".split(),
    "general": "weather cake holiday music joke dinner".split(),
}
EXPERTS = ("code", "legal", "multilingual", "general")


def word_vectors(texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """One fixed random direction a word."""
    rows = []
    for text in texts:
        total = np.zeros(32)
        for word in text.casefold().split():
            seed = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=4).digest(), "big")
            total += np.random.default_rng(seed).normal(size=32)
        rows.append(total / max(float(np.linalg.norm(total)), 1e-9))
    return np.asarray(rows, dtype=np.float32)


def prompts(count: int, seed: int = 0) -> list[LabelledPrompt]:
    """Rows of the four domains in turn, every tenth of two of them."""
    dice = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        labels = [EXPERTS[number % 4]]
        if number % 10 == 0:
            labels = ["code", "multilingual"]
        words = [str(dice.choice(WORDS[label])) for label in labels for _ in range(3)]
        language = "es" if "multilingual" in labels else "en"
        text = " ".join(words) + f" {dice.integers(100_000)}"
        rows.append(LabelledPrompt(text, tuple(sorted(labels)), language, labels[0], "MIT"))
    return rows


def gate(seed: int = 0) -> Gate:
    """A gate that tells the domains apart."""
    rows = prompts(600, seed + 1)
    trained, _ = train_gate(rows, word_vectors, epochs=20, encoder_name="words", least_tried=40)
    return trained


def table(rows: Sequence[LabelledPrompt], seed: int = 0, spread: float = 0.02) -> LossTable:
    """Losses under which a label's expert is best: 1 nat, half a nat more for the others."""
    dice = np.random.default_rng(seed)
    found = LossTable(EXPERTS, EXPERTS)
    for row in rows:
        losses = [
            (1.0 if name in row.labels else 1.5) + float(dice.normal(0.0, spread))
            for name in EXPERTS
        ]
        found.rows[fingerprint(row.text)] = AnswerLoss(tuple(losses), 10)
    return found


def empty_gate(labels: tuple[str, ...], vector_dimensions: int, encoder: str = "") -> Gate:
    """Return a gate of zeros, to which every label is equally probable."""
    columns = feature_dimensions(vector_dimensions)
    weight = np.zeros((len(labels), columns), dtype=np.float32)
    return Gate(labels, weight, np.zeros(len(labels), dtype=np.float32), encoder=encoder)


def with_expert(gate: Gate, name: str, features: npt.NDArray[np.float32]) -> Gate:
    """The gate with one more label, made of joined features."""
    return gate.with_prototype(name, gate.prototype(features))
