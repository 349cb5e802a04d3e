"""A job of the engine: tokens to run through one or more rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from experts.arena import RowCache
from experts.generation import Chunk, Score
from experts.invocation import NEVER, Starts
from experts.lowrank import Gate, active

Event = Chunk | Score | BaseException
Emit = Callable[[Event], None]


@dataclass(eq=False)
class Row:
    """One expert's view of the tokens: a gate, a weight in the mixture, its own cache.

    Set when its job is let in: where its waiting adapters begin to act, and how many tokens at the
    beginning of the prompt have the keys and values of the base, because none acts yet.
    """

    gate: Gate
    weight: float = 1.0
    cache: RowCache = field(default_factory=lambda: RowCache(0, 0))
    starts: Starts = field(default_factory=dict)
    shared: int = 0

    @property
    def key(self) -> tuple[tuple[str, float, int], ...]:
        """Equal for rows whose keys and values are equal functions of the tokens."""
        parts = ((name, w, self.starts.get(name, 0)) for name, w in self.gate.items() if w)
        return tuple(sorted(part for part in parts if part[2] != NEVER))


@dataclass(frozen=True)
class Feed:
    """What a row needs next: to be run up to token `stop`, with logits at positions `wanted`.

    The logits at position p are the prediction of token p + 1. The last `spare` tokens may be left
    out where they would cost others time.
    """

    row: Row
    stop: int
    wanted: Sequence[int] = ()
    spare: int = 0


@dataclass(frozen=True)
class Found:
    """What one step gave a row: logits [positions, vocabulary]."""

    row: Row
    positions: Sequence[int]
    logits: torch.Tensor


@dataclass(frozen=True)
class Terms:
    """What a request asks of the scheduler.

    A larger `priority` goes first; `deadline` is a moment of `time.monotonic`; requests of equal
    priority share the engine evenly between principals. `arrived` is set by the scheduler.
    """

    priority: int = 0
    deadline: float | None = None
    principal: str = ""
    arrived: float = 0.0


USUAL = Terms()


class Job(ABC):
    """Tokens and rows; the engine asks for its feeds, runs them and hands the logits back.

    `guessed` counts tokens that were run on a guess, `guessed_right` those of them that came true.
    """

    def __init__(self, id: str, prompt: Sequence[int], rows: Sequence[Row], emit: Emit) -> None:
        self.id, self.rows, self.emit = id, list(rows), emit
        self.tokens = list(prompt)
        self.prompt = len(prompt)
        self.done = False
        self.guessed = self.guessed_right = 0
        self.terms = USUAL

    @property
    def adapters(self) -> frozenset[str]:
        """Names of the adapters that its rows need."""
        return frozenset().union(*(active(row.gate) for row in self.rows))

    @property
    @abstractmethod
    def longest(self) -> int:
        """Tokens that each row may come to hold."""

    @abstractmethod
    def feeds(self) -> list[Feed]:
        """What the rows need next; a feed may be run in several steps."""

    @abstractmethod
    def take(self, found: Sequence[Found]) -> None:
        """Called once per step with what its rows were given."""


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
        super().__init__(id, prompt, [row], emit)
        self.tokens += text
        self._size = size
        self._sum, self._seen = 0.0, 0

    @property
    def longest(self) -> int:
        """Every token once."""
        return len(self.tokens)

    def feeds(self) -> list[Feed]:
        """Position p predicts token p + 1: from the last prompt token to the last but one."""
        last = len(self.tokens) - 1
        return [Feed(self.rows[0], last, range(self.prompt - 1, last))]

    def take(self, found: Sequence[Found]) -> None:
        """Add the log-probabilities of the tokens that follow these positions."""
        for one in found:
            if one.positions:
                targets = torch.tensor([self.tokens[p + 1] for p in one.positions])
                logps = torch.log_softmax(one.logits.float(), dim=-1).cpu()
                self._sum += float(logps.gather(1, targets[:, None]).double().sum())
                self._seen += len(one.positions)
        if self._seen == len(self.tokens) - self.prompt:
            self.done = True
            self.emit(Score(self._sum, self._seen, self._size))
