"""Exact mixtures of experts against one expert, and against plain ways of mixing."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from benchmarks.measure import Spread, ratios, spread, take_turns
from benchmarks.prompts import QUESTIONS
from benchmarks.report import Goal, Row, Section
from benchmarks.ride import Ride
from benchmarks.workbench import Workbench, members
from experts.generation import Sampling
from experts.method import Method

MIXES: dict[str, tuple[float, ...]] = {
    ".7/.1/.1/.1": (0.7, 0.1, 0.1, 0.1),
    ".9/.034/.033/.033": (0.9, 0.034, 0.033, 0.033),
    ".4/.2/.2/.2": (0.4, 0.2, 0.2, 0.2),
    "uniform": (0.25,) * 4,
}
# A pass per expert takes four times as long, and more questions say more than longer answers.
LENGTH, GREEDY_LENGTH = 128, 64
MAIN = ".7/.1/.1/.1"
PAIRS: dict[str, tuple[float, ...]] = {".7/.3": (0.7, 0.3), ".5/.5": (0.5, 0.5)}
ALONE = "alone"
_ALONE_NOTE = "one expert writes a token a step here, without guesses"
LATENT, PACKED, APART, DRAFTED = "latent", "packed lock-step", "sequential lock-step", "speculative"


def sampled(bench: Workbench) -> Section:
    """Sampling at temperature 1: seconds of decoding ÷ those of one expert."""
    times: dict[str, list[float]] = {}
    prompts: dict[str, list[float]] = {}
    fed: dict[str, list[float]] = {}
    for number in range(bench.rounds(4)):
        rides = {ALONE: _ride(bench, number, (1.0,), Method.LOCKSTEP, 1.0)}
        for name, weights in {**MIXES, **PAIRS}.items():
            rides[f"{LATENT} {name}"] = _ride(bench, number, weights, Method.LATENT, 1.0)
        rides[PACKED] = _ride(bench, number, MIXES["uniform"], Method.LOCKSTEP, 1.0)
        _round(rides, times, prompts)
        for name, ride in rides.items():
            fed.setdefault(name, []).append(ride.tokens_run / len(ride.answer))
    rows = []
    for name, taken in times.items():
        if name != ALONE:
            rows.append(
                Row(
                    f"sampled, {name}",
                    ratios(taken, times[ALONE]),
                    _sampled_goal(name),
                    detail=f"{statistics.mean(fed[name]):.2f} tokens fed per token",
                )
            )
    rows.append(_token_time(times[ALONE], bench))
    rows.append(_prompt_row(prompts, PACKED))
    return Section("mixtures", rows, [_ALONE_NOTE, f"our dtype {bench.dtype}"])


def greedy(bench: Workbench) -> Section:
    """Greedy: speculation against lock-step in one pass and in one pass per expert."""
    times: dict[str, dict[str, list[float]]] = {name: {} for name in MIXES}
    consulted: dict[str, list[float]] = {name: [] for name in MIXES}
    same = total = 0
    for number in range(bench.rounds(6)):
        for name, weights in MIXES.items():
            # The mix of the goals gets all rounds, the others a third of them.
            if name != MAIN and number >= bench.rounds(2):
                continue
            rides = {
                DRAFTED: _ride(bench, number, weights, Method.SPECULATIVE, 0.0),
                PACKED: _ride(bench, number, weights, Method.LOCKSTEP, 0.0),
                ALONE: _ride(bench, number, (1.0,), Method.LOCKSTEP, 0.0),
            }
            if name == MAIN:
                rides[APART] = _ride(bench, number, weights, Method.LOCKSTEP, 0.0, apart=True)
            _round(rides, times[name], {})
            found, wanted = rides[DRAFTED].answer, rides[PACKED].answer
            same += _common(found, wanted)
            total += len(wanted)
            job = rides[DRAFTED].job
            consulted[name].append(getattr(job, "consulted", float("nan")) / len(found))
    rows = []
    for name, taken in times.items():
        rows += _greedy_rows(name, taken, consulted[name])
    note = f"{same} of {total} greedy tokens before the first difference from lock-step"
    return Section("greedy", rows, [note, _ALONE_NOTE, f"our dtype {bench.dtype}"])


def _greedy_rows(
    name: str, taken: Mapping[str, Sequence[float]], consulted: Sequence[float]
) -> list[Row]:
    chosen = name == MAIN
    rows = [
        Row(
            f"experts consulted per token, {name}",
            spread(consulted),
            Goal(1.6) if chosen else None,
            unit="",
        ),
        Row(
            f"speed vs packed lock-step, {name}",
            ratios(taken[PACKED], taken[DRAFTED]),
            Goal(1.2, at_most=False) if chosen else None,
        ),
        Row(f"time vs one expert, {name}", ratios(taken[DRAFTED], taken[ALONE])),
    ]
    if APART in taken:
        goal = Goal(2.3, at_most=False) if chosen else None
        rows.append(
            Row(
                f"speed vs sequential lock-step, {name}", ratios(taken[APART], taken[DRAFTED]), goal
            )
        )
    return rows


def _ride(
    bench: Workbench,
    number: int,
    weights: Sequence[float],
    method: Method,
    temperature: float,
    *,
    apart: bool = False,
) -> Ride:
    length = bench.size(LENGTH if temperature else GREEDY_LENGTH, 12)
    sampling = Sampling(length, temperature=temperature, seed=number + 1)
    prompt = bench.prompt(QUESTIONS[number % len(QUESTIONS)])
    return Ride(bench.runner(), prompt, members(weights), sampling, method, apart=apart)


def _round(
    rides: Mapping[str, Ride], times: dict[str, list[float]], prompts: dict[str, list[float]]
) -> None:
    for name, ride in rides.items():
        prompts.setdefault(name, []).append(ride.prefill())
    for name, took in take_turns({name: ride.steps() for name, ride in rides.items()}).items():
        times.setdefault(name, []).append(took)
    for ride in rides.values():
        ride.close()


def _sampled_goal(name: str) -> Goal | None:
    goals = {f"{LATENT} {mix}": 1.30 for mix in MIXES} | {f"{LATENT} {mix}": 1.15 for mix in PAIRS}
    return Goal(goals[name]) if name in goals else None


def _token_time(taken: Sequence[float], bench: Workbench) -> Row:
    count = bench.size(LENGTH, 12)
    return Row("one expert, a token", spread([1000 * t / count for t in taken]), unit="ms")


def _prompt_row(prompts: Mapping[str, Sequence[float]], name: str) -> Row:
    one: Spread = spread([1000 * t for t in prompts[ALONE]])
    detail = f"one expert {one.median:.0f} ms; not in the ratios above"
    return Row(
        "prompt pass of 4 experts vs one", ratios(prompts[name], prompts[ALONE]), detail=detail
    )


def _common(found: Sequence[int], wanted: Sequence[int]) -> int:
    """Length of the common beginning."""
    pairs = enumerate(zip(found, wanted, strict=True))
    return next((n for n, (a, b) in pairs if a != b), len(wanted))
