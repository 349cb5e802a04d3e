"""Losses of known answers, token by token under every expert, in a file that grows row by row.

The file is also a table of `router.losses`: it has the same lines, with the tokens' losses besides.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from experts.answer_losses import answer_losses
from experts.examples import Example
from experts.runner import Runner
from router.dataset import fingerprint
from router.losses import AnswerLoss, LossFile, LossTable

Floats = npt.NDArray[np.float64]
KEY = "by_token"


class TokenLosses:
    """Losses [experts, tokens] of prompts' answers, kept in a file.

    Raises `LossError` where the file holds losses of other experts, or is none.
    """

    def __init__(self, path: Path, experts: Sequence[str], marks: Sequence[str]) -> None:
        # Checks the head, and cuts a last line that was being written.
        self.table: LossTable = LossFile(path, experts, marks).table
        self._path = path
        self._tokens: dict[int, Floats] = {}
        for line in path.read_text(encoding="utf-8").splitlines()[1:]:
            fields = json.loads(line)
            self._tokens[int(fields["key"], 16)] = np.asarray(fields[KEY], dtype=np.float64)

    def of(self, text: str) -> Floats | None:
        """The losses [experts, tokens] of this prompt's answer, if they are known."""
        return self._tokens.get(fingerprint(text))

    def add(self, text: str, by_token: Sequence[Sequence[float]]) -> None:
        """Keep the losses [experts][tokens] of this prompt's answer."""
        key = fingerprint(text)
        tokens: npt.NDArray[np.float64] = np.asarray(by_token, dtype=np.float64).round(5)
        means = [round(float(mean), 6) for mean in tokens.mean(axis=1)]
        fields = {
            "key": f"{key:016x}",
            "tokens": tokens.shape[1],
            "losses": means,
            KEY: tokens.tolist(),
        }
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(fields) + "\n")
        self._tokens[key] = tokens
        self.table.rows[key] = AnswerLoss(tuple(means), tokens.shape[1])


def measure(
    runner: Runner,
    adapters: Sequence[str],
    examples: Sequence[Example],
    kept: TokenLosses,
    on_rows: Callable[[int, int], None] = lambda _done, _total: None,
) -> int:
    """Measure the examples that are not in the file yet, under the base and under every adapter.

    Returns how many were new. `on_rows` is called with (done, total) of all.
    """
    new = [example for example in examples if kept.of(example.row.prompt) is None]
    known = len(examples) - len(new)
    gates = [{}, *({name: 1.0} for name in adapters)]
    on_rows(known, len(examples))
    for found in answer_losses(runner, gates, new, lambda d, _t: on_rows(known + d, len(examples))):
        kept.add(found.example.row.prompt, found.by_token)
    return len(new)
