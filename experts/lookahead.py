"""One expert's answer, several tokens a step where the text repeats itself.

On a CPU a step over a few tokens of a row takes little longer than over one, because both wait for
the weights. What is guessed from the text's own repetitions runs with the last token; each place's
token is then chosen as ever, and what was guessed behind the first that differs is forgotten. The
choices are functions of seed, place and distribution, so the text is the one that a token a step
would give.
"""

from __future__ import annotations

from collections.abc import Sequence

from experts.answer import Answer, Writing
from experts.job import Emit, Feed, Found, Row
from experts.lookup import Lookup
from experts.sampling import mix

MOST_GUESSES = 8


class Lookahead(Answer):
    """An answer of a single row."""

    def __init__(
        self, id: str, prompt: Sequence[int], rows: Sequence[Row], emit: Emit, writing: Writing
    ) -> None:
        super().__init__(id, prompt, rows, emit, writing)
        self._lookup = Lookup(prompt)
        self._most, self._least_match = MOST_GUESSES // 2, 2

    def feeds(self) -> list[Feed]:
        """The last token and the guesses behind it."""
        last = len(self.tokens)
        wanted = range(self.confirmed - 1, last)
        return [Feed(self.rows[0], last, wanted, spare=last - self.confirmed)]

    def work(self, found: Sequence[Found]) -> None:
        """Choose the token of each place until a guess was wrong."""
        logits = [place for one in found for place in one.logits]
        guesses = self.tokens[self.confirmed : self.confirmed + len(logits) - 1]
        before = self.written
        for number, place in enumerate(logits):
            logps = mix(place[None], [1.0])
            token = self.choose(logps, self.written)
            self.confirm(token, logps)
            if self.done or number == len(guesses) or token != guesses[number]:
                break
        if logits:
            self._go_on(len(guesses), self.written - before - 1)

    def _go_on(self, guessed: int, right: int) -> None:
        """Forget wrong guesses and make new ones, as many as the last ones let hope for."""
        self.guessed += guessed
        self.guessed_right += right
        del self.tokens[self.confirmed :]
        self.rows[0].cache.rewind(self.confirmed - 1)
        self._lookup.extend(self.tokens[-right - 1 :])
        if guessed:
            self._most = min(MOST_GUESSES, 2 * right + 1)
            self._least_match = 2 if right else 3
        room = self.sampling.max_tokens - self.written - 1
        if not self.done:
            self.tokens += self._lookup.guess(min(self._most, room), self._least_match)
