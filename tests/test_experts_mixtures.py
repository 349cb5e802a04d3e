"""The methods of computing a mixture against the mixture: by enumeration and by lock-step."""

from __future__ import annotations

import asyncio
import functools
import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from tiny_adapters import write_adapters

from experts.adapters import EMBEDDED, load_adapter
from experts.answer import Answer, Writing
from experts.engine import Engine, WeightedGate
from experts.generation import Chunk, FinishReason, Sampling
from experts.job import Event, Found, Row
from experts.limits import EngineLimits
from experts.lowrank import Gate
from experts.method import Method, choose_method, write_by
from experts.runner import Runner
from experts.speculation import Speculation
from experts.template import render_prompt

VOCABULARY, END = 4, 3
Path_ = list[tuple[int, int]]


class Enumerator:
    """Dice that take every outcome in turn; `probability` is that of the path just walked."""

    def __init__(self) -> None:
        self._path: Path_ = []
        self._place = 0
        self.probability = 1.0

    def paths(self) -> Iterator[None]:
        more = True
        while more:
            self._place, self.probability = 0, 1.0
            yield
            while self._path and self._path[-1][0] + 1 >= self._path[-1][1]:
                self._path.pop()
            more = bool(self._path)
            if more:
                self._path[-1] = (self._path[-1][0] + 1, self._path[-1][1])

    def pick(self, weights: torch.Tensor, position: int, use: str) -> int:
        chosen = self._branch(len(weights))
        self.probability *= float(weights[chosen] / weights.sum())
        return chosen

    def accepts(self, probability: float, position: int) -> bool:
        yes = self._branch(2) == 1
        certain = min(probability, 1.0)
        self.probability *= certain if yes else 1 - certain
        return yes

    def _branch(self, ways: int) -> int:
        if self._place == len(self._path):
            self._path.append((0, ways))
        chosen = self._path[self._place][0]
        self._place += 1
        return chosen


class Spelling:
    """A detokenizer that spells tokens as digits and never stops."""

    stopped = False

    def push(self, token: int) -> str:
        return str(token)

    def flush(self) -> str:
        return ""

    def text_of(self, token: int) -> str:
        return str(token)


@functools.cache
def toy_logits(expert: int, tokens: tuple[int, ...]) -> torch.Tensor:
    generator = torch.Generator().manual_seed(hash((expert, tokens)) % 2**31)
    return torch.randn(VOCABULARY, generator=generator) * 1.5


def write(
    method: Method,
    weights: Sequence[float],
    sampling: Sampling,
    dice: Enumerator,
    verify_at: int = 4,
) -> tuple[int, ...]:
    """Run one answer on the toy experts, without an engine."""
    job = toy(method, weights, sampling, dice, verify_at)
    return tuple(job.tokens[2 : job.confirmed])


def toy(
    method: Method,
    weights: Sequence[float],
    sampling: Sampling,
    dice: Enumerator,
    verify_at: int = 4,
) -> Answer:
    rows = [Row({str(n): 1.0}, weight) for n, weight in enumerate(weights)]
    writing = Writing(sampling, dice, frozenset({END}), Spelling(), method)  # type: ignore[arg-type]
    prompt, posterior = [0, 1], method is Method.DRAW_ONCE
    job: Answer
    if method is Method.SPECULATIVE:
        job = Speculation("toy", prompt, rows, ignore, writing, verify_at=verify_at)
    else:
        job = write_by(method, "toy", prompt, rows, ignore, writing, posterior=posterior)
    while not job.done and dice.probability > 0:
        found = []
        for feed in job.feeds():
            expert = int(next(iter(feed.row.gate)))
            assert feed.row.cache.length <= min(feed.wanted)
            logits = [toy_logits(expert, tuple(job.tokens[: p + 1])) for p in feed.wanted]
            feed.row.cache.length = feed.stop
            found.append(Found(feed.row, feed.wanted, torch.stack(logits)))
        assert found
        job.take(found)
    return job


def ignore(_event: Event) -> None:
    """Nobody listens to a toy."""


def mixture(
    weights: Sequence[float], sampling: Sampling, *, posterior: bool = False
) -> dict[tuple[int, ...], float]:
    """Probability of every string, from the definition."""
    length = sampling.max_tokens
    found: dict[tuple[int, ...], float] = {}
    for string in itertools.product(range(VOCABULARY), repeat=length):
        ended = string.index(END) + 1 if END in string else length
        kept = string[:ended]
        if kept not in found:
            found[kept] = _probability(kept, weights, sampling, posterior)
    return found


def _probability(
    string: tuple[int, ...], weights: Sequence[float], sampling: Sampling, posterior: bool
) -> float:
    now = torch.tensor(weights, dtype=torch.float64)
    total = 1.0
    for place, token in enumerate(string):
        prefix = (0, 1, *string[:place])
        each = torch.stack(
            [torch.softmax(toy_logits(n, prefix).double(), 0) for n in range(len(weights))]
        )
        mixed = now @ each
        heated = mixed ** (1 / sampling.temperature)
        heated = heated / heated.sum()
        order = sorted(range(VOCABULARY), key=lambda t: (-float(heated[t]), t))
        kept, mass = [], 0.0
        for candidate in order:
            if sampling.top_p < 1 and mass >= sampling.top_p:
                break
            kept.append(candidate)
            mass += float(heated[candidate])
        total *= float(heated[token]) / mass if token in kept else 0.0
        if posterior:
            now = now * each[:, token]
            now = now / now.sum()
    return total


CASES = [
    (Method.LATENT, Sampling(3, 1.0), 4),
    (Method.DRAW_ONCE, Sampling(3, 1.0), 4),
    (Method.LOCKSTEP, Sampling(3, 0.7, 0.9), 4),
    (Method.SPECULATIVE, Sampling(3, 1.0), 1),
    (Method.SPECULATIVE, Sampling(2, 1.0), 2),
    (Method.SPECULATIVE, Sampling(3, 0.7, 0.9), 1),
    (Method.SPECULATIVE, Sampling(3, 0.7, 0.9), 4),
    (Method.SPECULATIVE, Sampling(3, 1.6, 0.6), 2),
]


@pytest.mark.parametrize("weights", [(0.6, 0.4), (0.3, 0.3, 0.4)])
@pytest.mark.parametrize(("method", "sampling", "verify_at"), CASES)
def test_every_string_has_its_probability(
    method: Method, sampling: Sampling, verify_at: int, weights: tuple[float, ...]
) -> None:
    truth = mixture(weights, sampling, posterior=method is Method.DRAW_ONCE)
    found: dict[tuple[int, ...], float] = defaultdict(float)
    dice = Enumerator()
    for _ in dice.paths():
        string = write(method, weights, sampling, dice, verify_at)
        if dice.probability > 0:
            found[string] += dice.probability
    assert sum(truth.values()) == pytest.approx(1, abs=1e-9)
    assert max(abs(found[s] - p) for s, p in truth.items()) < 1e-6
    assert sum(found.values()) == pytest.approx(1, abs=1e-6)


def test_an_enumeration_sees_a_wrong_weight() -> None:
    sampling = Sampling(2, 1.0)
    truth = mixture((0.7, 0.3), sampling)
    found: dict[tuple[int, ...], float] = defaultdict(float)
    dice = Enumerator()
    for _ in dice.paths():
        found[write(Method.LATENT, (0.69, 0.31), sampling, dice)] += dice.probability
    assert max(abs(found[s] - p) for s, p in truth.items()) > 1e-4


@pytest.mark.parametrize("sampling", [Sampling(5, 1.0), Sampling(4, 0.7, 0.9)])
def test_guesses_from_repetitions_leave_every_string_its_probability(sampling: Sampling) -> None:
    """One expert; the prompt repeats itself, so there is a guess from the first token on."""
    truth = mixture((1.0,), sampling)
    found: dict[tuple[int, ...], float] = defaultdict(float)
    dice, guessed, right = Enumerator(), 0, 0
    for _ in dice.paths():
        job = toy(Method.ALONE, (1.0,), sampling, dice)
        found[tuple(job.tokens[2 : job.confirmed])] += dice.probability
        guessed, right = guessed + job.guessed, right + job.guessed_right
    assert max(abs(found[s] - p) for s, p in truth.items()) < 1e-6
    assert sum(found.values()) == pytest.approx(1, abs=1e-6)
    assert 0 < right < guessed


@pytest.mark.parametrize(
    ("sampling", "posterior", "method"),
    [
        (Sampling(9, 1.0), False, Method.LATENT),
        (Sampling(9, 1.0), True, Method.DRAW_ONCE),
        (Sampling(9, 1.0, logprobs=0), False, Method.LOCKSTEP),
        (Sampling(9, 1.0, top_p=0.9), False, Method.SPECULATIVE),
        (Sampling(9, 0.7), True, Method.LOCKSTEP),
        (Sampling(9), False, Method.SPECULATIVE),
        (Sampling(9), True, Method.LOCKSTEP),
    ],
)
def test_the_cheapest_exact_method_is_chosen(
    sampling: Sampling, posterior: bool, method: Method
) -> None:
    rows = [Row({}, 0.6), Row({"red": 1.0}, 0.4)]
    assert choose_method(rows, sampling, posterior=posterior) is method
    assert choose_method(rows[:1], sampling, posterior=posterior) is Method.ALONE


def test_without_a_clear_lead_all_go_in_lockstep() -> None:
    rows = [Row({f"a{n}": 1.0}, 0.25) for n in range(4)]
    assert choose_method(rows, Sampling(9), posterior=False) is Method.LOCKSTEP
    rows[0].weight, rows[1].weight = 0.4, 0.1
    assert choose_method(rows, Sampling(9), posterior=False) is Method.LOCKSTEP
    rows[0].weight, rows[1].weight = 0.7, 0.1
    assert choose_method(rows, Sampling(9), posterior=False) is Method.SPECULATIVE


GATES: dict[str, Gate] = {n: {} if n == "plain" else {n: 1.0} for n in ("plain", "red", "blue")}


@pytest.fixture(scope="module")
def runner(tiny_dir: Path, tmp_path_factory: pytest.TempPathFactory, device: str) -> Runner:
    folders = write_adapters(tiny_dir, tmp_path_factory.mktemp("adapters"))
    runner = Runner(tiny_dir, device=device, dtype="float32", threads=1, cache_tokens=4096)
    runner.load([load_adapter(n, f, runner.linears) for n, f in folders.items()])
    return runner


@pytest.fixture(scope="module")
def engine(runner: Runner) -> Iterator[Engine]:
    engine = Engine(runner, EngineLimits(context=256, max_rows=12, max_waiting=500))
    engine.start()
    yield engine
    engine.stop()


async def ask(
    engine: Engine,
    prompt: Sequence[int],
    weights: dict[str, float],
    sampling: Sampling,
    method: Method | None = None,
) -> list[Chunk]:
    members = [WeightedGate(GATES[name], weight) for name, weight in weights.items()]
    stream = engine.generate("", prompt, members, sampling, method=method)
    return [chunk async for chunk in stream]


def text(chunks: Sequence[Chunk]) -> str:
    return "".join(chunk.text for chunk in chunks)


async def margins(engine: Engine, prompt: Sequence[int], weights: dict[str, float]) -> list[float]:
    """Difference of the two likeliest log-probabilities at each place of the greedy answer."""
    chunks = await ask(engine, prompt, weights, Sampling(40, logprobs=2), Method.LOCKSTEP)
    return [p.top[0][1] - p.top[1][1] for chunk in chunks for p in chunk.logprobs]


@pytest.mark.models
@pytest.mark.parametrize(
    "weights", [{"red": 0.9, "plain": 0.1}, {"plain": 0.4, "blue": 0.3, "red": 0.3}]
)
async def test_greedy_speculation_equals_lockstep(
    engine: Engine, weights: dict[str, float]
) -> None:
    compared = 0
    for start in range(8):
        prompt = [start + 5, 900 + 31 * start, 42, 7]
        truth = await ask(engine, prompt, weights, Sampling(40), Method.LOCKSTEP)
        found = await ask(engine, prompt, weights, Sampling(40), Method.SPECULATIVE)
        assert found[-1].method == "speculative"
        if min(await margins(engine, prompt, weights)) > 1e-4:
            compared += 1
            assert text(found) == text(truth)
            assert found[-1].usage == truth[-1].usage
    assert compared >= 6


@pytest.mark.models
async def test_an_answer_by_guesses_is_that_of_a_token_a_step(base_dir: Path, device: str) -> None:
    """The embedded code expert, which repeats what it is shown: the same tokens at fewer steps."""
    runner = Runner(base_dir, device=device, dtype="float32", threads=2, cache_tokens=4096)
    runner.load([load_adapter("code", EMBEDDED / "code", runner.linears)])
    engine = Engine(runner, EngineLimits(context=512))
    engine.start()
    asked = (
        "Indent this function:\ndef add_two_numbers(first_number, second_number):\n"
        "return first_number + second_number"
    )
    prompt = render_prompt(runner.tokenizer, [("user", asked)])
    for temperature in (0.0, 0.4):
        sampling = Sampling(50, temperature, seed=4, logprobs=2)
        member, heard = WeightedGate({"code": 1.0}, 1.0), []
        for method in (Method.LOCKSTEP, None):
            stream = engine.generate("", prompt, [member], sampling, method=method)
            heard.append([chunk async for chunk in stream])
        plain, quick = ([p for c in chunks for p in c.logprobs] for chunks in heard)
        assert [p.token for p in quick] == [p.token for p in plain]
        assert [p.logprob for p in quick] == pytest.approx([p.logprob for p in plain], abs=2e-3)
        assert text(heard[0]) == text(heard[1])
        assert heard[0][-1].usage == heard[1][-1].usage
        assert len(heard[1]) < len(heard[0])
    engine.stop()
    assert 0 < engine.counters.guessed_right <= engine.counters.guessed


@pytest.mark.models
async def test_a_stop_string_ends_every_method_before_it(engine: Engine) -> None:
    weights = {"red": 0.6, "plain": 0.4}
    for method, temperature in itertools.product((Method.SPECULATIVE, Method.LOCKSTEP), (0.0, 0.8)):
        sampling = Sampling(30, temperature, seed=5)
        whole = text(await ask(engine, [9, 8, 7], weights, sampling, method))
        stop = whole[12:17]
        sampling = Sampling(30, temperature, seed=5, stop=(stop,))
        cut = await ask(engine, [9, 8, 7], weights, sampling, method)
        assert text(cut) == whole[: whole.index(stop)]
        assert cut[-1].finish_reason is FinishReason.STOP


@pytest.mark.models
async def test_a_seed_gives_the_same_text_alone_and_in_company(engine: Engine) -> None:
    asked = [
        ({"red": 0.5, "plain": 0.3, "blue": 0.2}, Sampling(24, temperature, top_p, seed=seed))
        for seed, (temperature, top_p) in enumerate([(1.0, 1.0), (0.7, 0.9), (1.3, 1.0)] * 3)
    ]
    solo = [text(await ask(engine, [5, 6, 7], *one)) for one in asked]
    together = await asyncio.gather(*(ask(engine, [5, 6, 7], *one) for one in asked * 2))
    assert [text(chunks) for chunks in together] == solo * 2
    assert len(set(solo)) == len(solo)
