"""One answer computed step by step on a runner, outside the engine's thread, to time its steps."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from experts.answer import Answer, Writing
from experts.detokenizer import Detokenizer
from experts.dice import SeededDice
from experts.engine import WeightedGate
from experts.generation import Sampling
from experts.job import Event, Feed, Found, Row
from experts.method import Method, write_by
from experts.runner import Runner, Work


class Ride:
    """An answer of a fixed length, written by one method; no token ends it.

    Args:
        apart: run each row in a pass of its own, as a loop over the experts would.
    """

    def __init__(
        self,
        runner: Runner,
        prompt: Sequence[int],
        members: Sequence[WeightedGate],
        sampling: Sampling,
        method: Method,
        *,
        apart: bool = False,
    ) -> None:
        self._runner, self._apart = runner, apart
        self.rows_run = self.tokens_run = 0
        writing = Writing(
            sampling=sampling,
            dice=SeededDice(sampling.seed or 0),
            ends=frozenset(),
            detokenizer=Detokenizer(runner.tokenizer),
            method=str(method),
        )
        rows = [Row(member.gate, member.weight) for member in members]
        self.job: Answer = write_by(method, "ride", prompt, rows, ignore, writing, posterior=False)

    @property
    def answer(self) -> list[int]:
        """The tokens that are certain."""
        return self.job.tokens[self.job.prompt : self.job.confirmed]

    def prefill(self) -> float:
        """Run all of the prompt but its last token through every row; seconds."""
        started = time.perf_counter()
        for row in self.job.rows:
            cache = self._runner.arena.reserve(self.job.longest + 1)
            if cache is None:
                raise MemoryError("the cache is too small for this benchmark")
            row.cache = cache
            ahead = self.job.tokens[: self.job.prompt - 1]
            self._runner.run([Work(cache, row.gate, ahead, [])])
        return time.perf_counter() - started

    def steps(self) -> Iterator[float]:
        """Decode to the end; yields the seconds of each step."""
        while not self.job.done:
            started = time.perf_counter()
            feeds = self.job.feeds()
            if self._apart:
                found = [one for feed in feeds for one in self._run([feed])]
            else:
                found = self._run(feeds)
            self.job.take(found)
            yield time.perf_counter() - started

    def close(self) -> None:
        """Give the memory back and keep nothing as a cache."""
        for row in self.job.rows:
            row.cache.rewind(0)
            self._runner.arena.release(row.cache, row.key, [])

    def _run(self, feeds: Sequence[Feed]) -> list[Found]:
        works, wanted = [], []
        for feed in feeds:
            start = feed.row.cache.length
            places = [place for place in feed.wanted if start <= place < feed.stop]
            tokens = self.job.tokens[start : feed.stop]
            works.append(Work(feed.row.cache, feed.row.gate, tokens, [p - start for p in places]))
            wanted.append(places)
            self.tokens_run += len(tokens)
        self.rows_run += len(feeds)
        logits = self._runner.run(works)
        return [
            Found(feed.row, places, one)
            for feed, places, one in zip(feeds, wanted, logits, strict=True)
        ]


def ignore(_event: Event) -> None:
    """Nobody listens to a ride."""
