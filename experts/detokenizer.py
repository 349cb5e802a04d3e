"""Tokens to text while they arrive: whole characters only, stop strings held back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_UNFINISHED = "\N{REPLACEMENT CHARACTER}"


class Detokenizer:
    """Turns a growing list of tokens into text that never has to be taken back.

    Text is released when it is a whole number of characters and cannot be the beginning of a stop
    string. `stopped` tells that a stop string was found; the text ends before it.
    """

    def __init__(self, tokenizer: Any, stop: Sequence[str] = ()) -> None:  # noqa: ANN401
        self._tokenizer = tokenizer
        self._stop = [s for s in stop if s]
        self._tokens: list[int] = []
        self._window = 0
        self._read = 0
        self._pending = ""
        self.stopped = False

    def push(self, token: int) -> str:
        """Take one more token and return the text that is now certain."""
        self._tokens.append(token)
        before = self._decode(self._tokens[self._window : self._read])
        now = self._decode(self._tokens[self._window :])
        if len(now) > len(before) and not now.endswith(_UNFINISHED):
            # A window that starts at the last released token keeps the cost per token constant.
            self._window, self._read = self._read, len(self._tokens)
            self._pending += now[len(before) :]
        return self._release()

    def flush(self) -> str:
        """The rest of the text, at the end of the answer; may still find a stop string in it."""
        before = self._decode(self._tokens[self._window : self._read])
        now = self._decode(self._tokens[self._window :])
        self._read = self._window = len(self._tokens)
        self._pending += now[len(before) :]
        text = self._release()
        rest, self._pending = self._pending, ""
        return text if self.stopped else text + rest

    def text_of(self, token: int) -> str:
        """The text of one token by itself, special tokens included (for log-probabilities)."""
        return str(self._tokenizer.decode([token], skip_special_tokens=False))

    def _decode(self, tokens: Sequence[int]) -> str:
        return str(self._tokenizer.decode(tokens, skip_special_tokens=True))

    def _release(self) -> str:
        found = [at for at in (self._pending.find(s) for s in self._stop) if at >= 0]
        if self.stopped:
            text = ""
        elif found:
            self.stopped = True
            text = self._pending[: min(found)]
            self._pending = ""
        else:
            held = max((_overlap(self._pending, s) for s in self._stop), default=0)
            cut = len(self._pending) - held
            text, self._pending = self._pending[:cut], self._pending[cut:]
        return text


def _overlap(text: str, stop: str) -> int:
    # Length of the longest end of `text` that is a beginning of `stop`.
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
