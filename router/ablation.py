"""What each part of a router is worth: the gate trained again without it, on the same rows.

Every variant has the same seed and meets the same prompts, the same changes of them and the same
follow-ups, so that its difference from the whole is paired, row by row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from router.calibration import Matrix
from router.dataset import LabelledPrompt, hash_share
from router.evaluation import target_matrix
from router.features import Encoder
from router.fitting import NGRAM_SCALE, SCALES, STATISTICS_SCALE, VECTOR_SCALE
from router.flips import sample
from router.intervals import RESAMPLES, Interval, bootstrap
from router.parts import WHOLE_CHARACTERS, clean
from router.robustness import TRANSFORMS
from router.router import Router
from router.scores import expected_error, macro_f1, reliability
from router.training import train_gate
from router.trials import Floats, Indices
from router.vectors import Progress

FOLLOW_UPS = (
    "Now make it shorter.",
    "And in one sentence?",
    "Why?",
    "Give me another example.",
    "Go on.",
    "What do you mean by that?",
    "Is that all?",
    "And the second part?",
    "Try once more.",
    "Say it more simply.",
)
"""What is asked about any answer, and tells nothing of its domain."""

_ANSWERED = "Here it is."

Turns = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Variant:
    """A router without one of its parts; `what` says which, in words.

    `scales` are those of the features' blocks, 0 for one that is left out. Rows of `sources` are
    not learned from. Of texts at most `longest` characters are read, of conversations only the last
    message where there is no `history`.
    """

    name: str
    what: str
    scales: tuple[float, float, float] = SCALES
    variations: bool = True
    sources: frozenset[str] = frozenset()
    longest: int | None = None
    history: bool = True

    def read(self, text: str) -> str:
        """Return what of a text is read."""
        return text if self.longest is None else clean(text)[: self.longest]

    def conversation(self, turns: Turns) -> list[tuple[str, str]]:
        """Return what of a conversation is read."""
        kept = turns if self.history else turns[-1:]
        return [(role, self.read(text)) for role, text in kept]

    def lessons(self, rows: Sequence[LabelledPrompt]) -> list[LabelledPrompt]:
        """Return what is learned from."""
        kept = (row for row in rows if row.family not in self.sources)
        return [replace(row, text=self.read(row.text)) for row in kept]

    @property
    def training(self) -> tuple[object, ...]:
        """What training depends on: variants that agree in it share a gate."""
        return self.scales, self.variations, self.sources, self.longest


WHOLE = Variant("whole", "nothing left out")


def variants(sources: Sequence[str]) -> tuple[Variant, ...]:
    """Return the whole and every variant; `sources` are those of the rows written by hand."""
    without_vector = (0.0, NGRAM_SCALE, STATISTICS_SCALE)
    without_ngrams = (VECTOR_SCALE, 0.0, STATISTICS_SCALE)
    without_shares = (VECTOR_SCALE, NGRAM_SCALE, 0.0)
    found = [
        WHOLE,
        Variant("sentence vector", "meaning, by the encoder", without_vector),
        Variant("n-grams", "hashed character n-grams", without_ngrams),
        Variant("shares", "script, punctuation and word shares", without_shares),
        Variant("history", "earlier turns of the conversation", history=False),
        Variant("parts", "the end of long texts", longest=WHOLE_CHARACTERS),
        Variant("variations", "training prompts said otherwise", variations=False),
    ]
    if sources:
        words = f"training rows of {', '.join(sources)}"
        found.append(Variant("own rows", words, sources=frozenset(sources)))
    return tuple(found)


@dataclass(frozen=True, eq=False)
class Questions:
    """What every variant is asked: rows with one label, changed rows, and follow-ups.

    `changed` holds, for each of `sampled`, its text after every transform; `follow_ups` are
    conversations that end with one of `FOLLOW_UPS`, for each of `sampled` with one label.
    """

    single: Sequence[LabelledPrompt]
    sampled: Sequence[LabelledPrompt]
    changed: Sequence[Sequence[str]]
    followed: Sequence[LabelledPrompt]
    follow_ups: Sequence[Turns]

    @classmethod
    def of(
        cls, rows: Sequence[LabelledPrompt], labels: Sequence[str], per_domain: int, seed: int
    ) -> Questions:
        """Make the questions of rows, `per_domain` of each domain for changes and follow-ups."""
        single = [row for row in rows if len(row.labels) == 1]
        sampled = sample(rows, per_domain, seed)
        changed = [
            [change.apply(row.text, _wrong(row, labels, seed), seed) for change in _CHANGES]
            for row in sampled
        ]
        followed = [row for row in sampled if len(row.labels) == 1]
        follow_ups = [
            (("user", row.text), ("assistant", _ANSWERED), ("user", _follow_up(row, seed)))
            for row in followed
        ]
        return cls(single, sampled, changed, followed, follow_ups)


@dataclass(frozen=True, eq=False)
class Answers:
    """A variant's answers, row by row.

    `probabilities` [single, labels] and the label `found` for rows with one label; `flipped`
    [sampled] the share of changes that changed the leading expert; `right` [followed] whether the
    most probable expert of a follow-up is that of the first message.
    """

    probabilities: Matrix
    found: tuple[str, ...]
    flipped: Floats
    right: Floats


def ablate(
    taught: Sequence[LabelledPrompt],
    rows: Sequence[LabelledPrompt],
    encoder: Encoder,
    generalist: str,
    *,
    sources: Sequence[str] = (),
    per_domain: int = 30,
    resamples: int = RESAMPLES,
    seed: int = 0,
    epochs: int = 24,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train every variant on `taught`, ask it `rows`, and return its figures by name.

    Each figure has the variant's own value and its `change` from the whole, with 95 % intervals. An
    `encoder` that remembers is quickest: all variants read the same texts. `sources` are those of
    rows written by hand. `progress` is called with ("ablation", done, variants). Raises
    `DatasetError` for rows that cannot be trained on, or with a label that no row taught.
    """
    labels = tuple(sorted({label for row in taught for label in row.labels}))
    target_matrix(rows, labels)
    questions = Questions.of(rows, labels, per_domain, seed)
    gates: dict[tuple[object, ...], Router] = {}
    answers: dict[str, Answers] = {}
    chosen = variants([name for name in sources if any(row.family == name for row in taught)])
    for number, variant in enumerate(chosen, start=1):
        if variant.training not in gates:
            gate, _ = train_gate(
                variant.lessons(taught),
                encoder,
                seed=seed,
                epochs=epochs,
                variations=variant.variations,
                generalist=generalist,
                scales=variant.scales,
            )
            gates[variant.training] = Router(gate, encoder, labels, generalist, first_stage=False)
        answers[variant.name] = _answers(variant, gates[variant.training], questions)
        if progress is not None:
            progress("ablation", number, len(chosen))
    whole = answers[WHOLE.name]
    return {
        variant.name: {
            "what": variant.what,
            **_figures(questions, answers[variant.name], whole, labels, resamples, seed),
        }
        for variant in chosen
    }


def _answers(variant: Variant, router: Router, questions: Questions) -> Answers:
    def ask(turns: Turns) -> tuple[Floats, str]:
        decision = router.route(variant.conversation(turns))
        return decision.ranking.probabilities(router.experts), decision.chosen[0]

    asked = [ask([("user", row.text)])[0] for row in questions.single]
    probabilities = np.array(asked, dtype=np.float64)
    likeliest = [router.experts[place] for place in probabilities.argmax(axis=1)]
    flipped = []
    for row, texts in zip(questions.sampled, questions.changed, strict=True):
        lead = ask([("user", row.text)])[1]
        flipped.append(np.mean([ask([("user", text)])[1] != lead for text in texts]))
    right = []
    for row, turns in zip(questions.followed, questions.follow_ups, strict=True):
        likely = int(ask(turns)[0].argmax())
        right.append(float(router.experts[likely] in row.labels))
    return Answers(probabilities, tuple(likeliest), np.array(flipped), np.array(right))


def _figures(
    questions: Questions,
    answers: Answers,
    whole: Answers,
    labels: Sequence[str],
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    truths = [row.labels[0] for row in questions.single]
    places = np.array([labels.index(truth) for truth in truths])
    domains = [" ".join(row.labels) for row in questions.sampled]
    firsts = [row.labels[0] for row in questions.followed]

    def both(strata: Sequence[str], figure: Callable[[Answers, Indices], float]) -> dict[str, Any]:
        def change(at: Indices) -> float:
            return figure(answers, at) - figure(whole, at)

        settings = (strata, resamples, seed)
        value: Interval = bootstrap(lambda at: figure(answers, at), *settings)
        return {"value": value, "change": bootstrap(change, *settings)}

    def f1(one: Answers, at: Indices) -> float:
        return macro_f1([truths[n] for n in at], [one.found[n] for n in at])

    def error(one: Answers, at: Indices) -> float:
        right = (one.probabilities[at].argmax(axis=1) == places[at]).astype(np.float64)
        return expected_error(reliability(one.probabilities[at].max(axis=1), right))

    return {
        "accuracy": both(truths, lambda one, at: float(_right(one, places)[at].mean())),
        "macro_f1": both(truths, f1),
        "ece": both(truths, error),
        "flips": both(domains, lambda one, at: float(one.flipped[at].mean())),
        "follow_ups": both(firsts, lambda one, at: float(one.right[at].mean())),
        "languages": _by_language(questions.single, _right(answers, places)),
    }


def _right(answers: Answers, places: Indices) -> Floats:
    return np.asarray(answers.probabilities.argmax(axis=1) == places, dtype=np.float64)


def _by_language(rows: Sequence[LabelledPrompt], right: Floats) -> Mapping[str, float]:
    languages = np.array([row.language for row in rows])
    return {str(name): float(right[languages == name].mean()) for name in np.unique(languages)}


def _wrong(row: LabelledPrompt, labels: Sequence[str], seed: int) -> str:
    others = [name for name in labels if name not in row.labels]
    return others[int(hash_share(row.text, seed) * len(others))] if others else labels[0]


def _follow_up(row: LabelledPrompt, seed: int) -> str:
    return FOLLOW_UPS[int(hash_share(row.text, seed + 1) * len(FOLLOW_UPS))]


_CHANGES = tuple(TRANSFORMS.values())
