"""Teach a gate an expert from a few example prompts, or forget one, and say what that does."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from router.calibration import Matrix, calibration_error, softmax
from router.comparison import Estimate, wilson
from router.dataset import DatasetError, fingerprint
from router.features import Encoder, featurize
from router.gate import Gate
from router.memory import EncoderMemory
from router.prototypes import LEAST_EXAMPLES, Prototype
from router.twins import TWIN_COSINE, cosines, prototypes

Array = npt.NDArray[np.float64]
Features = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Lesson:
    """What teaching an expert from `examples` prompts did; shares lie between 0 and 1.

    `recall`: of the examples, those that it leads when it is taught by the others alone. `before`:
    who leads the examples without it. `alike`: the share of the background that is of its domain by
    its looks, and was not held against it. `moved`: the share that it leads now; `taken`: the same,
    of what each label led. `accuracy` and `ece` are on the background, before and after; the latter
    ECE counts the examples, and not what is alike. No row is judged by a prototype in which it took
    part. `nearest` is the label whose prototype is most like its own, `cosine` how much, `twin`
    whether too much.
    """

    name: str
    examples: int
    recall: Estimate
    before: Mapping[str, float]
    alike: float
    moved: float
    taken: Mapping[str, float]
    accuracy: tuple[float, float]
    ece: tuple[float, float]
    nearest: str
    cosine: float
    twin: bool

    def metadata(self) -> dict[str, Any]:
        """Return the figures as a mapping fit for JSON, rounded to four digits."""
        found = asdict(self)
        name = found.pop("name")
        return {"expert": name, **{key: _rounded(value) for key, value in found.items()}}


def read_examples(path: Path) -> list[str]:
    """Return the different prompts of a file: JSON Lines (`.jsonl`) with `prompt`, or one a line.

    Raises `DatasetError` for a line without a prompt and for too few prompts, `OSError` for a
    missing file.
    """
    lines = [line.strip() for line in path.read_text(encoding="utf-8").split("\n")]
    numbered = [(number, line) for number, line in enumerate(lines, start=1) if line]
    if path.suffix == ".jsonl":
        texts = [_prompt(line, f"{path}:{number}") for number, line in numbered]
    else:
        texts = [line for _, line in numbered]
    found: dict[int, str] = {}
    for text in texts:
        found.setdefault(fingerprint(text), text)
    different = list(found.values())
    if len(different) < LEAST_EXAMPLES:
        raise DatasetError(
            f"{path}: {len(different)} different prompts are too few, at least {LEAST_EXAMPLES} "
            "are needed: with fewer nobody can tell how many of its own prompts the expert would "
            "get."
        )
    return different


def example_features(texts: Sequence[str], encoder: Encoder) -> Features:
    """Return the joined features [texts, features] of prompts, each a conversation of its own."""
    memory = EncoderMemory(encoder)
    memory.learn(texts)
    found = [featurize([("user", text)], memory) for text in texts]
    return np.stack([np.concatenate([one.vector, one.surfaces[0]]) for one in found])


def teach(
    gate: Gate, name: str, features: Features, share: float | None = None
) -> tuple[Gate, Lesson]:
    """Return the gate with one more expert, made from joined features, and what that does.

    `share` is as in `Gate.prototype`. The gate's own figures (`held_out` in its metadata) are moved
    by what the background shows. Raises what `Gate.prototype` and `Gate.with_prototype` do.
    """
    prototype = gate.prototype(features, share)
    taught = gate.with_prototype(name, prototype)
    lesson = _lesson(gate, taught, name, features, prototype)
    known = {**gate.metadata.get("taught", {}), name: lesson.metadata()}
    metadata = {**_moved(gate.metadata, lesson.accuracy, lesson.ece), "taught": known}
    return replace(taught, metadata=metadata), lesson


def forget(gate: Gate, name: str, heir: str) -> Gate:
    """Return the gate without a label, its figures moved by what the background shows.

    What a trained label got goes to `heir`. Raises what `Gate.without` does.
    """
    left = gate.without(name, heir)
    taught = {key: value for key, value in gate.metadata.get("taught", {}).items() if key != name}
    metadata = {key: value for key, value in gate.metadata.items() if key != "taught"}
    if gate.background is not None:
        # Both on the rows that are left: those of a forgotten label have no right answer any more.
        old = replace(gate, background=left.background)
        both = [(one.background_probabilities(), one.background_targets()) for one in (old, left)]
        before, after = [(_accuracy(*one), calibration_error(*one)) for one in both]
        metadata = _moved(metadata, (before[0], after[0]), (before[1], after[1]))
    return replace(left, metadata={**metadata, **({"taught": taught} if taught else {})})


def left_out_probabilities(gate: Gate, shares: Matrix, vectors: Features, logits: Array) -> Matrix:
    """Return the probabilities [rows, labels + 1] beside a new expert that has these log odds.

    `shares` [rows, labels] are the gate's own, `vectors` [rows, d] what they were made of, `logits`
    [rows] the new expert's against the background, by a prototype in which the row took no part.
    """
    if gate.taught is not None:
        logits = logits - gate.taught.log_total(vectors)
    pair = softmax(np.stack([np.zeros_like(logits), logits], axis=1))
    return np.concatenate([shares * pair[:, :1], pair[:, 1:]], axis=1)


def _lesson(
    gate: Gate, taught: Gate, name: str, features: Features, prototype: Prototype
) -> Lesson:
    own, others = gate.probabilities(features), gate.background_probabilities()
    background = gate.known_background().vectors.astype(np.float32)
    examples = features[:, : gate.vector_dimensions]
    own_now = left_out_probabilities(gate, own, examples, prototype.held_out)
    others_now = left_out_probabilities(gate, others, background, prototype.background)
    leads, lost = others.argmax(axis=1), others_now.argmax(axis=1) == len(gate.labels)
    targets = gate.background_targets()
    targets_now = np.concatenate([targets, np.zeros((len(targets), 1))], axis=1)
    truth = np.zeros_like(own_now)
    truth[:, -1] = 1.0
    likeness = cosines(prototypes(taught))[-1, :-1]
    nearest = int(likeness.argmax())
    return Lesson(
        name=name,
        examples=len(features),
        recall=wilson(int((own_now.argmax(axis=1) == len(gate.labels)).sum()), len(features)),
        before=_shares(gate, own.argmax(axis=1)),
        alike=float(prototype.alike.mean()),
        moved=float(lost.mean()),
        taken={
            label: float(lost[leads == place].mean())
            for place, label in enumerate(gate.labels)
            if lost[leads == place].any()
        },
        accuracy=(_accuracy(others, targets), _accuracy(others_now, targets_now)),
        ece=(
            calibration_error(others, targets),
            calibration_error(
                np.concatenate([others_now[~prototype.alike], own_now]),
                np.concatenate([targets_now[~prototype.alike], truth]),
            ),
        ),
        nearest=gate.labels[nearest],
        cosine=float(likeness[nearest]),
        twin=bool(likeness[nearest] >= TWIN_COSINE),
    )


def _shares(gate: Gate, leads: npt.NDArray[np.int64]) -> dict[str, float]:
    counted = Counter(gate.labels[place] for place in leads)
    return {label: count / len(leads) for label, count in counted.most_common()}


def _accuracy(found: Matrix, targets: Matrix) -> float:
    hit = np.take_along_axis(targets, found.argmax(axis=1)[:, None], axis=1) > 0.0
    return float(hit.mean())


def _moved(
    metadata: Mapping[str, Any], accuracy: tuple[float, float], ece: tuple[float, float]
) -> dict[str, Any]:
    held_out = metadata.get("held_out")
    if not isinstance(held_out, Mapping):
        return dict(metadata)
    steps = {"accuracy": accuracy[1] - accuracy[0], "ece": ece[1] - ece[0]}
    moved = {
        key: round(min(1.0, max(0.0, held_out[key] + step)), 4)
        for key, step in steps.items()
        if isinstance(held_out.get(key), int | float)
    }
    return {**metadata, "held_out": {**held_out, **moved}}


def _prompt(line: str, where: str) -> str:
    try:
        fields = json.loads(line)
    except json.JSONDecodeError as error:
        raise DatasetError(f"{where}: not a JSON object ({error.msg}).") from error
    text = (fields.get("prompt") or fields.get("text")) if isinstance(fields, dict) else None
    if not isinstance(text, str) or not text.strip():
        raise DatasetError(f"{where}: `prompt` (or `text`) must be a string that is not empty.")
    return text


def _rounded(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _rounded(inner) for key, inner in value.items()}
    if isinstance(value, tuple | list):
        return [_rounded(inner) for inner in value]
    return round(value, 4) if isinstance(value, float) else value
