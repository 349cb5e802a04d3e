"""The work inside the engine: an answer being written, or a text being scored."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from experts.cache import RowCache
from experts.detokenizer import Detokenizer
from experts.gated import Gate
from experts.generation import Chunk, FinishReason, Sampling, Score, TokenLogprob, Usage
from experts.sampling import choose_token, mix, top_tokens

Event = Chunk | Score | BaseException
Emit = Callable[[Event], None]


@dataclass
class Row:
    """One expert's view of the tokens: a gate, a weight in the mixture, its own cache."""

    gate: Gate
    weight: float
    cache: RowCache

    def pending(self, tokens: Sequence[int]) -> Sequence[int]:
        """The tokens that this row has not seen."""
        return tokens[self.cache.length :]


class Job(ABC):
    """Tokens to run through one or more rows; the engine feeds logits until it is done."""

    def __init__(self, id: str, tokens: Sequence[int], rows: Sequence[Row], emit: Emit) -> None:
        self.id, self.rows, self.emit = id, list(rows), emit
        self.tokens = list(tokens)
        self.done = False

    @property
    @abstractmethod
    def reserved(self) -> int:
        """Tokens of cache that the job may come to need, over all rows."""

    @abstractmethod
    def wanted(self, start: int, stop: int) -> range:
        """Positions in `start:stop` whose logits the job needs."""

    @abstractmethod
    def take(self, row: Row, positions: range, logits: torch.Tensor) -> None:
        """Logits [positions, vocabulary] of one row; called for every row in every step."""


class Answer(Job):
    """An answer that grows by one token when all of its rows have given their logits."""

    def __init__(
        self,
        id: str,
        prompt: Sequence[int],
        rows: Sequence[Row],
        emit: Emit,
        *,
        sampling: Sampling,
        seed: int,
        ends: frozenset[int],
        detokenizer: Detokenizer,
        method: str,
        posterior: bool = False,
    ) -> None:
        super().__init__(id, prompt, rows, emit)
        self.sampling, self.seed, self.ends, self.method = sampling, seed, ends, method
        self._posterior = posterior
        self._detokenizer = detokenizer
        self._prompt = len(prompt)
        self._ready: dict[int, torch.Tensor] = {}

    @property
    def reserved(self) -> int:
        """Prompt and answer at their longest, in every row."""
        return (self._prompt + self.sampling.max_tokens) * len(self.rows)

    def wanted(self, start: int, stop: int) -> range:
        """Only the last position predicts a token that is not there yet."""
        return range(stop - 1, stop) if stop == len(self.tokens) else range(0)

    def take(self, row: Row, positions: range, logits: torch.Tensor) -> None:
        """Keep the row's logits; with all rows in, choose the next token and emit its text."""
        if positions:
            self._ready[id(row)] = logits[-1]
        if len(self._ready) == len(self.rows):
            stacked = torch.stack([self._ready[id(r)] for r in self.rows])
            self._ready.clear()
            token = self._append(mix(stacked, [r.weight for r in self.rows]))
            if self._posterior:
                self._update_weights(stacked, token)

    def _update_weights(self, logits: torch.Tensor, token: int) -> None:
        # Bayes: the weight of an expert grows with the likelihood it gave the chosen token.
        logps = torch.log_softmax(logits.double(), dim=-1)[:, token].cpu()
        prior = torch.tensor([r.weight for r in self.rows], dtype=torch.float64).log()
        for row, weight in zip(self.rows, torch.softmax(prior + logps, 0).tolist(), strict=True):
            row.weight = weight

    def _append(self, logps: torch.Tensor) -> int:
        written = len(self.tokens) - self._prompt
        token = choose_token(logps, self.sampling, self.seed, written)
        ended = token in self.ends
        text = "" if ended else self._detokenizer.push(token)
        self.tokens.append(token)
        full = written + 1 >= self.sampling.max_tokens
        self.done = ended or full or self._detokenizer.stopped
        if self.done:
            text += self._detokenizer.flush()
        reason = None
        if ended or self._detokenizer.stopped:
            reason = FinishReason.STOP
        elif full:
            reason = FinishReason.LENGTH
        logprobs = self._logprobs(token, logps) if not ended else ()
        usage = Usage(self._prompt, written + 1) if self.done else None
        if text or logprobs or self.done:
            self.emit(Chunk(text, logprobs, reason, usage, self.method))
        return token

    def _logprobs(self, token: int, logps: torch.Tensor) -> tuple[TokenLogprob, ...]:
        if self.sampling.logprobs is None:
            return ()
        name = self._detokenizer.text_of
        best = top_tokens(logps, self.sampling.logprobs) if self.sampling.logprobs else []
        top = tuple((name(other), value) for other, value in best)
        return (TokenLogprob(name(token), float(logps[token]), top),)


class Scored(Job):
    """A given text whose log-likelihood under one gate is asked for."""

    def __init__(
        self,
        id: str,
        prompt: Sequence[int],
        text: Sequence[int],
        row: Row,
        emit: Emit,
        *,
        size: int,
    ) -> None:
        super().__init__(id, [*prompt, *text], [row], emit)
        self._prompt, self._size = len(prompt), size
        self._sum, self._seen = 0.0, 0

    @property
    def reserved(self) -> int:
        """Every token once."""
        return len(self.tokens)

    def wanted(self, start: int, stop: int) -> range:
        """Position p predicts token p + 1: from the last prompt token to the last but one."""
        return range(max(start, self._prompt - 1), min(stop, len(self.tokens) - 1))

    def take(self, row: Row, positions: range, logits: torch.Tensor) -> None:
        """Add the log-probabilities of the tokens that follow these positions."""
        if positions:
            targets = torch.tensor([self.tokens[p + 1] for p in positions], device=logits.device)
            logps = torch.log_softmax(logits.float(), dim=-1)
            self._sum += float(logps.gather(1, targets[:, None]).double().sum())
            self._seen += len(positions)
        if row.cache.length >= len(self.tokens):
            self.done = True
            self.emit(Score(self._sum, self._seen, self._size))
