"""How well each expert predicts known answers: what a choice of experts costs or gains.

A file of JSON Lines. The first line names the experts with a mark of what they were (weights and
base); every other line is one prompt: `{"key": ..., "tokens": n, "losses": [nats per token, ...]}`.
Lines are only ever appended, so a run that was cut short goes on where it stopped.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from router.dataset import fingerprint

Matrix = npt.NDArray[np.float64]


class LossError(ValueError):
    """A table that cannot be used; the message names the file and the line."""


@dataclass(frozen=True)
class AnswerLoss:
    """Mean loss in nats per answer token under each expert, in the table's order of experts."""

    losses: tuple[float, ...]
    tokens: int


@dataclass(frozen=True)
class LossTable:
    """Losses of prompts' known answers under `experts`, by `fingerprint` of the prompt.

    `marks` tell what the experts were: another adapter under the same name has another mark.
    """

    experts: tuple[str, ...]
    marks: tuple[str, ...]
    rows: dict[int, AnswerLoss] = field(default_factory=dict)

    def of(self, text: str) -> AnswerLoss | None:
        """The losses of this prompt's answer, if they are known."""
        return self.rows.get(fingerprint(text))

    def matrix(self, texts: Sequence[str], experts: Sequence[str]) -> Matrix:
        """[texts, experts] losses in this order of experts; NaN in the rows that are not known.

        Raises `LossError` for an expert that the table does not know.
        """
        unknown = sorted(set(experts) - set(self.experts))
        if unknown:
            raise LossError(f"no losses of {', '.join(unknown)}: measured were {self.experts}.")
        columns = [self.experts.index(name) for name in experts]
        missing = AnswerLoss((np.nan,) * len(self.experts), 0)
        found = [(self.of(text) or missing).losses for text in texts]
        return np.asarray(found, dtype=np.float64).reshape(len(texts), -1)[:, columns]

    def lengths(self, texts: Sequence[str]) -> npt.NDArray[np.int64]:
        """[texts] tokens that each row's losses are means of; 0 where they are not known."""
        rows = (self.of(text) for text in texts)
        return np.asarray([row.tokens if row else 0 for row in rows], dtype=np.int64)


def read_losses(path: Path) -> LossTable:
    """Read a table that `LossFile` wrote; a last line cut short is left out.

    Raises `LossError` for a file of another kind, `OSError` for a missing one.
    """
    lines = path.read_text(encoding="utf-8").split("\n")
    head = _object(lines[0], f"{path}:1")
    if not (_are_names(head.get("experts")) and _are_names(head.get("marks"))):
        raise LossError(f"{path}:1: expected an object with the lists `experts` and `marks`.")
    table = LossTable(tuple(head["experts"]), tuple(head["marks"]))
    # The text behind the last end of line was being written when the run was cut short.
    for number, line in enumerate(lines[1:-1], start=2):
        where = f"{path}:{number}"
        key, row = _row(_object(line, where), len(table.experts), where)
        table.rows[key] = row
    return table


class LossFile:
    """A table on disk that grows row by row.

    Raises `LossError` where the file holds losses of other experts.
    """

    def __init__(self, path: Path, experts: Sequence[str], marks: Sequence[str]) -> None:
        wanted = LossTable(tuple(experts), tuple(marks))
        self._path = path
        if path.exists() and path.stat().st_size:
            self.table = read_losses(path)
            if (self.table.experts, self.table.marks) != (wanted.experts, wanted.marks):
                raise LossError(
                    f"{path}: holds losses of {self.table.experts} with other weights or another "
                    "order; name another file, or delete this one to measure anew."
                )
            self._cut()
        else:
            self.table = wanted
            path.parent.mkdir(parents=True, exist_ok=True)
            self._append({"experts": list(experts), "marks": list(marks)})

    def add(self, text: str, row: AnswerLoss) -> None:
        """Keep the losses of this prompt's answer."""
        key = fingerprint(text)
        self.table.rows[key] = row
        losses = [round(loss, 6) for loss in row.losses]
        self._append({"key": f"{key:016x}", "tokens": row.tokens, "losses": losses})

    def _append(self, fields: Mapping[str, object]) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(fields) + "\n")

    def _cut(self) -> None:
        whole = self._path.read_bytes()
        end = whole.rfind(b"\n") + 1
        if end < len(whole):
            os.truncate(self._path, end)


def _object(line: str, where: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except json.JSONDecodeError as error:
        raise LossError(f"{where}: not a JSON object ({error.msg}).") from error
    if not isinstance(found, dict):
        raise LossError(f"{where}: expected a JSON object, got {type(found).__name__}.")
    return found


def _are_names(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, str) for v in value)


def _row(fields: Mapping[str, Any], count: int, where: str) -> tuple[int, AnswerLoss]:
    key, tokens, losses = fields.get("key"), fields.get("tokens"), fields.get("losses")
    fits = (
        isinstance(key, str)
        and isinstance(tokens, int)
        and isinstance(losses, list)
        and len(losses) == count
        and all(isinstance(loss, int | float) for loss in losses)
    )
    if not fits:
        raise LossError(f"{where}: expected `key`, `tokens` and `losses` of {count} experts.")
    try:
        place = int(fields["key"], 16)
    except ValueError as error:
        raise LossError(f"{where}: `key` is not a hexadecimal number.") from error
    return place, AnswerLoss(tuple(float(loss) for loss in fields["losses"]), fields["tokens"])
