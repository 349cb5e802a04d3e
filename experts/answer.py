"""An answer being written: what all methods of choosing its tokens have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from experts.detokenizer import Detokenizer
from experts.dice import Dice
from experts.generation import Chunk, FinishReason, Sampling, TokenLogprob, Usage
from experts.job import Emit, Feed, Found, Job, Row
from experts.sampling import choose_token, mix, top_tokens


@dataclass(frozen=True)
class Writing:
    """How an answer is written: sampling and its choices, end tokens, the name of the method."""

    sampling: Sampling
    dice: Dice
    ends: frozenset[int]
    detokenizer: Detokenizer
    method: str


class Answer(Job):
    """A prompt and the tokens behind it; `confirm` makes a token part of the answer.

    `tokens` may hold drafts behind the confirmed ones.
    """

    def __init__(
        self, id: str, prompt: Sequence[int], rows: Sequence[Row], emit: Emit, writing: Writing
    ) -> None:
        super().__init__(id, prompt, rows, emit)
        self.writing, self.sampling = writing, writing.sampling
        self.confirmed = len(prompt)
        self._text = ""
        self._logprobs: list[TokenLogprob] = []
        self._reason: FinishReason | None = None

    @property
    def longest(self) -> int:
        """Prompt and answer at their longest."""
        return self.prompt + self.sampling.max_tokens

    @property
    def written(self) -> int:
        """Tokens of the answer so far."""
        return self.confirmed - self.prompt

    def take(self, found: Sequence[Found]) -> None:
        """Let the method work on the step's logits, then emit what became certain."""
        self.work(found)
        if self.done or self._text or self._logprobs:
            usage = Usage(self.prompt, self.written) if self.done else None
            self.emit(
                Chunk(self._text, tuple(self._logprobs), self._reason, usage, self.writing.method)
            )
            self._text, self._logprobs = "", []

    @abstractmethod
    def work(self, found: Sequence[Found]) -> None:
        """Choose and confirm tokens."""

    def confirm(self, token: int, logps: torch.Tensor | None = None) -> None:
        """Make `token` the next one of the answer; it may end it.

        Args:
            logps: [vocabulary] log-probabilities of the combined distribution, if they are asked
                for by the request.
        """
        writing = self.writing
        self.tokens[self.confirmed : self.confirmed + 1] = [token]
        self.confirmed += 1
        ended = token in writing.ends
        if not ended:
            self._text += writing.detokenizer.push(token)
            if self.sampling.logprobs is not None and logps is not None:
                self._logprobs.append(self._logprob(token, logps))
        if ended or writing.detokenizer.stopped:
            self._reason = FinishReason.STOP
        elif self.written >= self.sampling.max_tokens:
            self._reason = FinishReason.LENGTH
        self.done = self._reason is not None
        if self.done:
            self._text += writing.detokenizer.flush()

    def choose(self, logps: torch.Tensor, position: int) -> int:
        """The token of a distribution [vocabulary] for the answer's `position`-th place."""
        return choose_token(logps, self.sampling, self.writing.dice, position)

    def _logprob(self, token: int, logps: torch.Tensor) -> TokenLogprob:
        name = self.writing.detokenizer.text_of
        best = top_tokens(logps, self.sampling.logprobs) if self.sampling.logprobs else []
        top = tuple((name(other), value) for other, value in best)
        return TokenLogprob(name(token), float(logps[token]), top)


class Lockstep(Answer):
    """All rows predict every token: an exact mixture, or a token a step of a single row.

    Args:
        posterior: update the rows' weights by each token's likelihood under them.
    """

    def __init__(
        self,
        id: str,
        prompt: Sequence[int],
        rows: Sequence[Row],
        emit: Emit,
        writing: Writing,
        *,
        posterior: bool = False,
    ) -> None:
        super().__init__(id, prompt, rows, emit, writing)
        self._posterior = posterior
        self._ready: dict[Row, torch.Tensor] = {}

    def feeds(self) -> list[Feed]:
        """Every row up to the last token, which predicts the next."""
        last = len(self.tokens)
        return [Feed(row, last, (last - 1,)) for row in self.rows if row not in self._ready]

    def work(self, found: Sequence[Found]) -> None:
        """With all rows in, mix them and choose."""
        self._ready |= {one.row: one.logits[-1] for one in found if one.positions}
        if len(self._ready) == len(self.rows):
            stacked = torch.stack([self._ready[row] for row in self.rows])
            self._ready.clear()
            logps = mix(stacked, [row.weight for row in self.rows])
            token = self.choose(logps, self.written)
            if self._posterior:
                self._update_weights(stacked, token)
            self.confirm(token, logps)

    def _update_weights(self, logits: torch.Tensor, token: int) -> None:
        # Bayes: the weight of an expert grows with the likelihood it gave the chosen token.
        logps = torch.log_softmax(logits.double(), dim=-1)[:, token].cpu()
        prior = torch.tensor([r.weight for r in self.rows], dtype=torch.float64).log()
        for row, weight in zip(self.rows, torch.softmax(prior + logps, 0).tolist(), strict=True):
            row.weight = weight


class Latent(Answer):
    """Sampling from a mixture by its hidden choice: draw an expert per token, ask it alone.

    Σ wᵢ pᵢ is the distribution of "draw i by w, then the token from pᵢ", so nothing is lost. An
    expert that was not drawn for a while catches up on the tokens in one chunk. Exact only where
    the token is drawn from the untruncated, untempered mixture, and for weights that do not depend
    on the experts' likelihoods.
    """

    def feeds(self) -> list[Feed]:
        """The drawn row alone."""
        last = len(self.tokens)
        return [Feed(self._drawn(), last, (last - 1,))]

    def work(self, found: Sequence[Found]) -> None:
        """Choose from the drawn row's distribution."""
        logits = [one.logits[-1] for one in found if one.positions]
        if logits:
            logps = torch.log_softmax(logits[0].float(), dim=-1)
            self.confirm(self.choose(logps, self.written), logps)

    def _drawn(self) -> Row:
        return draw(self.rows, self.writing.dice, self.written)


def draw(rows: Sequence[Row], dice: Dice, position: int) -> Row:
    """A row with probability in proportion to its weight."""
    weights = torch.tensor([row.weight for row in rows], dtype=torch.float64)
    return rows[dice.pick(weights, position, "expert")]
