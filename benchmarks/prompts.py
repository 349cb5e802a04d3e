"""The questions that the benchmark asks, and ragged prompts made of them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

EXPERTS = ("general", "code", "legal", "multilingual")

QUESTIONS = (
    "Write a Python function that merges two sorted lists, and explain each line of it.",
    "A tenant leaves a flat three months before the lease ends. Explain what the landlord may ask.",
    "Explica en español por qué el cielo es azul y después cuenta una historia corta sobre el mar.",
    "Plan a week of simple dinners for two people who do not eat meat, with a shopping list.",
    "Describe how a web browser turns a page of HTML into what is seen on the screen.",
    "Schreibe einem Freund einen Brief über deine Reise durch die Alpen im letzten Sommer.",
    "What does a warranty clause in a contract of sale usually say, and what does it leave out?",
    "Show how to read a large CSV file in Python line by line and count the words of one column.",
)

_SENTENCES = (
    "The river rises in the hills and reaches the sea after two hundred miles.",
    "def area(width, height): return width * height",
    "The seller shall deliver the goods within thirty days of the order.",
    "La biblioteca abre a las nueve y cierra a las ocho de la tarde.",
    "A good soup needs time, salt and a heavy pot.",
    "for name in sorted(names): count[name] = count.get(name, 0) + 1",
    "Either party may end this agreement by written notice of one month.",
    "Der Zug nach Hamburg fährt heute zehn Minuten später ab.",
)


@dataclass(frozen=True)
class Request:
    """One request of a trace: seconds after its start, expert, user text, answer length."""

    at: float
    expert: str
    text: str
    length: int


def ragged_text(dice: random.Random, sentences: int) -> str:
    """A question behind some sentences; no two of a seed begin alike."""
    chosen = dice.choices(_SENTENCES, k=sentences)
    return f"{dice.randrange(10**6)}. " + " ".join([*chosen, dice.choice(QUESTIONS)])


def trace(
    count: int, *, per_second: float, lengths: tuple[int, int], seed: int = 0
) -> Sequence[Request]:
    """Poisson arrivals with ragged prompts and answers, each expert equally often on average.

    Args:
        lengths: shortest and longest answer in tokens.
    """
    dice = random.Random(seed)
    found, now = [], 0.0
    for _ in range(count):
        text = ragged_text(dice, dice.randrange(0, 8))
        found.append(Request(now, dice.choice(EXPERTS), text, dice.randint(*lengths)))
        now += dice.expovariate(per_second)
    return found
