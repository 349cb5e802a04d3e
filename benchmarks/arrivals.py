"""A ragged Poisson trace over four experts, against transformers with PEFT."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from benchmarks.asking import ask_all, differs_at
from benchmarks.measure import interleave, ratios, spread
from benchmarks.peers import NO_END, Peer
from benchmarks.prompts import EXPERTS, Request, trace
from benchmarks.report import Goal, Row, Section
from benchmarks.workbench import Workbench, running

NEAR_TIE = 1e-4
Answers = list[list[int]]


class Arrivals:
    """One trace with its prompts, played to each side."""

    def __init__(self, bench: Workbench) -> None:
        self.bench = bench
        self.requests = trace(bench.size(64, 8), per_second=8.0, lengths=(8, bench.size(56, 12)))
        self.prompts = [bench.prompt(request.text) for request in self.requests]
        self.tokens = sum(request.length for request in self.requests)
        self.texts: list[str] = []
        self.answers: dict[str, Answers] = {}

    def ours(self) -> float:
        """Seconds from the first arrival to the last token, on our engine."""

        async def run() -> float:
            async with running(self.bench.runner()) as engine:
                started = time.perf_counter()
                heard = await ask_all(engine, self.requests, self.prompts)
                took = time.perf_counter() - started
            self.texts = [one.text for one in heard]
            return took

        return asyncio.run(run())

    def grouped(self) -> float:
        """The same by continuous batching: all that have arrived for one adapter, then the next.

        The adapter of the request that has waited longest goes next.
        """
        peer = self.bench.peer()
        answers: dict[int, list[int]] = {}
        with peer.batching() as manager:
            started = time.perf_counter()
            waiting = list(range(len(self.requests)))
            while waiting:
                now = time.perf_counter() - started
                if self.requests[waiting[0]].at > now:
                    time.sleep(self.requests[waiting[0]].at - now)
                    continue
                expert = self.requests[waiting[0]].expert
                group = [
                    n
                    for n in waiting
                    if self.requests[n].expert == expert and self.requests[n].at <= now
                ]
                peer.use(expert)
                answers |= self._batch(manager, group)
                waiting = [n for n in waiting if n not in answers]
            took = time.perf_counter() - started
        self.answers["grouped"] = [answers[n] for n in range(len(self.requests))]
        return took

    def one_by_one(self) -> float:
        """The same by `generate`, a request at a time in the order of arrival."""
        peer, found = self.bench.peer(), []
        started = time.perf_counter()
        for request, prompt in zip(self.requests, self.prompts, strict=True):
            time.sleep(max(0.0, started + request.at - time.perf_counter()))
            peer.use(request.expert)
            found.append(peer.generate(prompt, request.length))
        self.answers["one by one"] = found
        return time.perf_counter() - started

    def agreement(self, side: str) -> str:
        """How many answers are the same, and why others are not."""
        peer, same, near = self.bench.peer(), 0, 0
        for n, tokens in enumerate(self.answers[side]):
            place = differs_at(self.bench, self.texts[n], tokens)
            if place is None:
                same += 1
            else:
                near += _near_tie(peer, self.requests[n], self.prompts[n], tokens, place)
        total = len(self.answers[side])
        return f"{same} of {total} answers the same, {near} more differ at a near tie"

    def _batch(self, manager: object, group: Sequence[int]) -> dict[int, list[int]]:
        found: dict[int, list[int]] = {}
        for n in group:
            manager.add_request(  # type: ignore[attr-defined]
                self.prompts[n],
                request_id=str(n),
                max_new_tokens=self.requests[n].length,
                eos_token_id=NO_END,
            )
        while len(found) < len(group):
            result = manager.get_result(timeout=5)  # type: ignore[attr-defined]
            if result is not None and result.is_finished():
                if result.error is not None:
                    raise RuntimeError(f"continuous batching failed: {result.error}")
                found[int(result.request_id)] = list(result.generated_tokens)
        return found


def arrivals(bench: Workbench) -> Section:
    """Tokens per second against continuous batching grouped by adapter."""
    play = Arrivals(bench)
    return _against(play, "grouped", play.grouped, bench.rounds(3), Goal(1.5, at_most=False))


def queue(bench: Workbench) -> Section:
    """Tokens per second against `generate`, one request at a time."""
    play = Arrivals(bench)
    return _against(play, "one by one", play.one_by_one, 1, Goal(5.0, at_most=False))


def _against(
    play: Arrivals, side: str, theirs: Callable[[], float], rounds: int, goal: Goal
) -> Section:
    # The sides are warm after one short answer each; a whole round would take minutes.
    _warm(play)
    times = interleave({"ours": play.ours, side: theirs}, rounds, warm=0)
    speeds = {name: spread([play.tokens / t for t in taken]) for name, taken in times.items()}
    rows = [
        Row(
            f"trace vs transformers, {side}",
            ratios(times[side], times["ours"]),
            goal,
            detail=play.agreement(side),
        ),
        *(Row(f"{name}", speed, unit="tokens/s") for name, speed in speeds.items()),
    ]
    note = f"{len(play.requests)} requests, {sum(map(len, play.prompts))} prompt and {play.tokens} "
    return Section("trace" if side == "grouped" else "queue", rows, [note + "new tokens"])


def _warm(play: Arrivals) -> None:
    peer = play.bench.peer()
    for expert in EXPERTS:
        peer.use(expert)
        peer.generate(play.prompts[0], 2)
    play.bench.runner()


def _near_tie(
    peer: Peer, request: Request, prompt: Sequence[int], tokens: Sequence[int], place: int
) -> bool:
    peer.use(request.expert)
    # A character may take several tokens: the true difference is at or shortly before its text.
    return min(peer.gaps(prompt, tokens)[max(0, place - 3) : place + 1]) <= NEAR_TIE
