"""Adapters that wait for their invocation: every value against PEFT's own activated LoRA."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from waiting_adapters import MARKS, Truth, blended, text, write_waiting

from experts import runner as runner_module
from experts.adapters import load_adapter
from experts.answer import Writing, draw
from experts.detokenizer import Detokenizer
from experts.dice import SeededDice
from experts.evaluation import loss_matrix
from experts.examples import Example
from experts.examples import Row as Line
from experts.generation import Generation, LocalMode, Sampling, Score
from experts.invocation import NEVER, last_occurrence, shared_length, spans
from experts.job import USUAL, Event, Feed, Found, Job, Row, Scored
from experts.limits import EngineLimits
from experts.local import LocalExperts, LocalSpec
from experts.loop import StepLoop
from experts.lowrank import Gate
from experts.method import Method, write_by
from experts.runner import Runner, Work
from experts.sampling import choose_token
from experts.sharing import share
from experts.shelf import AdapterShelf

pytestmark = pytest.mark.models

WAITING, EVERYONE = list(MARKS), ["plain", "red", *MARKS]
GATES: dict[str, Gate] = {n: {} if n == "plain" else {n: 1.0} for n in EVERYONE}
NEAR = {"atol": 2e-4, "rtol": 1e-4}


@pytest.fixture(scope="module")
def folders(tiny_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_waiting(tiny_dir, tmp_path_factory.mktemp("waiting"))


@pytest.fixture(scope="module")
def truth(tiny_dir: Path, folders: dict[str, Path]) -> Truth:
    return Truth(tiny_dir, folders)


def loaded(tiny_dir: Path, folders: Mapping[str, Path], device: str) -> Runner:
    runner = Runner(tiny_dir, device=device, dtype="float32", threads=1, cache_tokens=4096)
    runner.load([load_adapter(n, f, runner.linears) for n, f in folders.items()])
    return runner


@pytest.fixture(scope="module")
def shared_runner(tiny_dir: Path, folders: dict[str, Path], device: str) -> Runner:
    return loaded(tiny_dir, folders, device)


@pytest.fixture
def runner(shared_runner: Runner) -> Runner:
    shared_runner.arena.clear()
    assert shared_runner.arena.free_tokens == shared_runner.arena.capacity
    return shared_runner


class Prompted(Job):
    """Wants what each of its rows predicts behind the prompt."""

    def __init__(self, names: Sequence[str], prompt: Sequence[int]) -> None:
        super().__init__("", prompt, [Row(GATES[name]) for name in names], ignore)
        self.names, self.logits = list(names), dict[Row, torch.Tensor]()

    @property
    def longest(self) -> int:
        return len(self.tokens)

    def feeds(self) -> list[Feed]:
        last = len(self.tokens)
        return [Feed(row, last, (last - 1,)) for row in self.rows if row not in self.logits]

    def take(self, found: Sequence[Found]) -> None:
        self.logits |= {one.row: one.logits[-1].cpu() for one in found if one.positions}
        self.done = len(self.logits) == len(self.rows)

    def check(self, truth: Truth) -> None:
        for name, row in zip(self.names, self.rows, strict=True):
            expected = truth.behind(name, tuple(self.tokens))
            torch.testing.assert_close(self.logits[row], expected, **NEAR)


def ignore(_event: Event) -> None:
    """Nobody listens."""


def by_hand(runner: Runner, **limits: int) -> StepLoop:
    """A loop without its thread."""
    return StepLoop(runner, EngineLimits(**limits), AdapterShelf.of(runner.bank.names))


def finish(loop: StepLoop, job: Job) -> None:
    loop.submit(job, USUAL)
    for _ in range(1000):
        if job.done:
            break
        loop._step()
    assert job.done
    loop._retire()


def written(
    loop: StepLoop,
    prompt: Sequence[int],
    members: Mapping[str, float],
    sampling: Sampling,
    method: Method = Method.LOCKSTEP,
) -> list[int]:
    """The tokens of an answer."""
    rows = [Row(GATES[name], weight) for name, weight in members.items()]
    detokenizer = Detokenizer(loop.runner.tokenizer)
    writing = Writing(sampling, SeededDice(sampling.seed or 0), frozenset(), detokenizer, "")
    job = write_by(method, "", prompt, rows, ignore, writing, posterior=False)
    finish(loop, job)
    return job.tokens[len(prompt) : job.confirmed]


def distributions(
    truth: Truth, names: Sequence[str], prompt: Sequence[int], said: Sequence[int]
) -> torch.Tensor:
    """[experts, said, vocabulary]: what each expert alone gives for every place of an answer."""
    assert not set(said) & {token for marks in MARKS.values() for token in marks}
    each = [truth.logits(name, [*prompt, *said])[len(prompt) - 1 : -1] for name in names]
    return torch.softmax(torch.stack(each).double(), -1)


def test_the_last_of_several_occurrences_counts() -> None:
    assert last_occurrence([1, 2, 1, 2, 1], (1, 2)) == 2
    assert last_occurrence((1, 1, 1), (1, 1)) == 1
    assert last_occurrence([2, 1], (1, 2)) is None
    assert last_occurrence([], (1,)) is None


def test_tokens_are_cut_where_an_adapter_begins_to_act() -> None:
    gate, starts = {"a": 0.5, "b": 0.25, "c": 0.25}, {"a": 10, "b": 20}
    none, one = {"c": 0.25}, {"a": 0.5, "c": 0.25}
    assert spans(gate, starts, 0, 30) == [(none, 10), (one, 10), (gate, 10)]
    assert spans(gate, starts, 10, 10) == [(one, 10)]
    assert spans(gate, starts, 5, 5) == [(none, 5)]
    assert spans(gate, starts, 20, 1) == [(gate, 1)]
    assert spans(gate, {"a": NEVER, "b": 3}, 2, 2) == [(none, 1), ({"b": 0.25, "c": 0.25}, 1)]
    assert shared_length(gate, starts, 30) == 0
    assert shared_length({"a": 0.5, "b": 0.5, "c": 0.0}, starts, 30) == 10
    assert shared_length({"a": 1.0}, {"a": NEVER}, 30) == shared_length({}, {}, 30) == 30


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("chunks", [(100,), (20, 41, 38, 1)])
def test_every_position_of_a_prompt_has_the_logits_of_peft(
    tiny_dir: Path,
    folders: dict[str, Path],
    truth: Truth,
    device: str,
    monkeypatch: pytest.MonkeyPatch,
    chunks: tuple[int, ...],
    fused: bool,
) -> None:
    """Rows of all kinds in the same steps; two invocations stand twice, one stands nowhere."""
    with monkeypatch.context() as patch:
        if not fused:
            patch.setattr(runner_module, "fits", lambda _model: False)
        runner = loaded(tiny_dir, folders, device)
    prompts = [text(100, n, dawn=10 + n, dusk=90 - n) for n in range(len(EVERYONE))]
    for prompt in prompts:
        prompt[50:53] = [*MARKS["dawn"], *MARKS["dusk"]]
    caches = [runner.arena.reserve(100) for _ in EVERYONE]
    found: list[list[torch.Tensor]] = [[] for _ in EVERYONE]
    start = 0
    for count in chunks:
        works = [
            Work(
                cache,
                GATES[name],
                prompt[start : start + count],
                range(count),
                runner.bank.starts(GATES[name], prompt),
            )
            for name, prompt, cache in zip(EVERYONE, prompts, caches, strict=True)
            if cache is not None
        ]
        for parts, logits in zip(found, runner.run(works), strict=True):
            parts.append(logits.cpu())
        start += count
    for name, prompt, parts in zip(EVERYONE, prompts, found, strict=True):
        torch.testing.assert_close(torch.cat(parts), truth.logits(name, prompt), **NEAR)
    plain = truth.logits("plain", prompts[2])
    assert (torch.cat(found[2])[50:] - plain[50:]).abs().max() > 0.1
    assert (torch.cat(found[2])[:50] - plain[:50]).abs().max() < 1e-3


def test_a_blend_lets_each_adapter_act_from_its_own_invocation(
    tiny_dir: Path, folders: dict[str, Path], runner: Runner
) -> None:
    """Two turns: one adapter goes on where it was, the invocation of the other moves."""
    gate = {"dawn": 0.6, "dusk": -0.5, "night": 0.7}
    first = text(70, 3, dawn=10, dusk=40)
    second = [*first, *text(30, 4, dusk=20)]
    for prompt, dusk in ((first, 40), (second, 90), (second, 90)):
        job = Prompted(["plain"], prompt)
        job.rows = [Row(gate)]
        finish(by_hand(runner), job)
        expected = blended(tiny_dir, folders, gate, {"dawn": 10, "dusk": dusk}, prompt)
        torch.testing.assert_close(job.logits[job.rows[0]], expected, **NEAR)
    assert runner.arena.reused_tokens > 0


def test_a_work_that_does_not_say_from_where_an_adapter_acts_is_refused(runner: Runner) -> None:
    row = runner.arena.reserve(4)
    assert row is not None
    with pytest.raises(ValueError, match="adapter 'dawn' waits: from where"):
        runner.run([Work(row, GATES["dawn"], [1, 2], [1])])
    runner.arena.release(row, (), [])


@pytest.mark.parametrize("method", [Method.LOCKSTEP, Method.ALONE])
@pytest.mark.parametrize("name", EVERYONE)
def test_greedy_tokens_are_those_of_pefts_generate(
    runner: Runner, truth: Truth, name: str, method: Method
) -> None:
    for prompt in (text(70, 1, dawn=66, dusk=30), text(9, 2, dawn=0), text(40, 3, night=37)):
        said = written(by_hand(runner), prompt, {name: 1.0}, Sampling(16), method)
        assert said == truth.generate(name, prompt, 16)


MEMBERS = {"plain": 0.1, "dawn": 0.4, "dusk": 0.3, "red": 0.2}


@pytest.mark.parametrize("step_tokens", [24, 256])
@pytest.mark.parametrize("method", [Method.LOCKSTEP, Method.SPECULATIVE])
def test_a_greedy_mixture_takes_the_best_of_the_sum_of_softmaxes(
    runner: Runner, truth: Truth, method: Method, step_tokens: int
) -> None:
    for seed, marks in enumerate([{"dawn": 146, "dusk": 149}, {"dawn": 20, "dusk": 90}, {}]):
        prompt = text(150, seed, **marks)
        loop = by_hand(runner, step_tokens=step_tokens)
        said = written(loop, prompt, MEMBERS, Sampling(16), method)
        weights = torch.tensor(list(MEMBERS.values()), dtype=torch.float64)
        mixed = torch.einsum(
            "e,esv->sv", weights, distributions(truth, list(MEMBERS), prompt, said)
        )
        chosen = mixed.gather(1, torch.tensor(said)[:, None])[:, 0]
        torch.testing.assert_close(chosen, mixed.max(-1).values, atol=1e-5, rtol=0)


@pytest.mark.parametrize("step_tokens", [24, 256])
def test_a_mixture_that_draws_its_experts_asks_each_in_its_own_state(
    runner: Runner, truth: Truth, step_tokens: int
) -> None:
    prompt, sampling = text(150, 5, dawn=146, dusk=149), Sampling(24, 1.0, seed=9)
    loop = by_hand(runner, step_tokens=step_tokens)
    said = written(loop, prompt, MEMBERS, sampling, Method.LATENT)
    each = distributions(truth, list(MEMBERS), prompt, said)
    rows, dice, drawn = [Row({}, w) for w in MEMBERS.values()], SeededDice(9), set()
    for place, token in enumerate(said):
        number = rows.index(draw(rows, dice, place))
        drawn.add(number)
        assert choose_token(each[number, place].log().float(), sampling, dice, place) == token
    assert drawn == {0, 1, 2, 3}
    # One expert acts everywhere; of the others the first that is drawn runs the prompt.
    run = loop.counters.tokens
    assert 2 * 150 <= run < 2 * 150 + 4 * 24 + 32


def test_a_score_counts_from_the_invocation_of_the_prompt_alone(
    runner: Runner, truth: Truth
) -> None:
    prompt, said = text(50, 1, dawn=30), text(12, 2, dawn=5)
    heard: list[Event] = []
    finish(by_hand(runner), Scored("", prompt, said, Row(GATES["dawn"]), heard.append, size=1))
    logits = truth.logits("dawn", [*prompt, *said], alora_offsets=[62 - 30])
    logps = torch.log_softmax(logits[49:-1].double(), -1)
    expected = float(logps.gather(1, torch.tensor(said)[:, None]).sum())
    (score,) = heard
    assert isinstance(score, Score) and score.logprob == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("step_tokens", "spare"), [(256, 0), (64, 32), (24, 32)])
def test_experts_that_wait_run_the_prompt_of_their_mixture_once(
    runner: Runner, truth: Truth, step_tokens: int, spare: int
) -> None:
    loop = by_hand(runner, step_tokens=step_tokens)
    job = Prompted(WAITING, text(200, 4, dawn=190, dusk=194, night=195))
    finish(loop, job)
    job.check(truth)
    # From 190, 194, 190 and 195 on each by itself; the last of these ran what is before.
    expected = 195 + 10 + 6 + 10 + 5
    assert expected <= loop.counters.tokens <= expected + spare
    assert runner.arena.cached_tokens == 192


def test_the_generalist_shares_its_prompt_and_ordinary_adapters_do_not(
    runner: Runner, truth: Truth
) -> None:
    prompt = text(120, 6, dawn=117)
    for names, tokens in {
        ("plain", "dawn"): 120 + 3,
        ("dawn", "plain", "dusk"): 120 + 3 + 1,
        ("red", "plain"): 240,
        ("red", "dawn"): 240,
    }.items():
        runner.arena.clear()
        loop = by_hand(runner)
        job = Prompted(names, prompt)
        finish(loop, job)
        job.check(truth)
        assert loop.counters.tokens == tokens


def test_nothing_is_copied_into_a_row_that_a_pass_works_on(runner: Runner) -> None:
    job = Prompted(["plain", "dawn"], text(200, 1))
    first, second = job.rows
    for row in job.rows:
        cache = runner.arena.reserve(200)
        assert cache is not None
        row.cache, row.shared = cache, 200
    runner.run([Work(first.cache, {}, job.tokens[:60], [])])
    assert share([job], {second}, runner.arena) == set()
    assert second.cache.length == 0
    assert share([job], set(), runner.arena) == {second}
    assert second.cache.length == 60
    both = [runner.arena.data[:, r.cache.start : r.cache.start + 60] for r in job.rows]
    assert torch.equal(both[0], both[1])
    for row in job.rows:
        runner.arena.release(row.cache, (), [])
    runner.arena.clear()


def ahead(job: Job) -> int:
    return max(row.cache.length for row in job.rows)


def test_a_mixture_that_is_cancelled_while_one_row_runs_for_all_leaves_nothing_behind(
    runner: Runner, truth: Truth, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A pass rests behind each layer, however quick the machine: else none is seen in flight.
    monkeypatch.setattr("experts.loop._BREATH", 0.0)
    loop, arena = by_hand(runner, step_tokens=32), runner.arena
    prompt = text(300, 7, dawn=296, night=290)
    gone, beside = Prompted(WAITING, prompt), Prompted(["dusk", "red"], text(150, 8, dusk=140))
    loop.submit(gone, USUAL)
    loop.submit(beside, USUAL)
    while not (ahead(gone) >= 96 and loop._flights.rows & {*gone.rows}):
        loop._step()
    assert not gone.done
    loop.cancel(gone)
    loop._step()
    assert not loop._flights.rows & {*gone.rows}
    while not beside.done:
        loop._step()
    loop._retire()
    assert arena.free_tokens == arena.capacity and loop.load == (0, 0)
    beside.check(truth)
    again, before = Prompted(WAITING, prompt), loop.counters.tokens
    finish(loop, again)
    again.check(truth)
    assert loop.counters.tokens - before < 300


def reused(loop: StepLoop, truth: Truth, prompt: Sequence[int], name: str) -> int:
    """Ask an expert for a few tokens, which must be PEFT's; what it did not have to compute."""
    before = loop.runner.arena.reused_tokens
    assert written(loop, prompt, {name: 1.0}, Sampling(8)) == truth.generate(name, prompt, 8)
    return loop.runner.arena.reused_tokens - before


def test_the_next_turn_of_a_chat_computes_anew_what_an_adapter_made(
    runner: Runner, truth: Truth
) -> None:
    loop, first = by_hand(runner), text(100, 1, dawn=97)
    said = written(loop, first, {"dawn": 1.0}, Sampling(40))
    second = [*first, *said, *text(30, 2, dusk=23, dawn=27)]
    assert last_occurrence(second, MARKS["dawn"]) == 167
    assert runner.arena.cached_tokens == 96
    assert reused(loop, truth, second, "dawn") == 96
    assert [reused(loop, truth, second, name) for name in ("plain", "dusk", "night", "dawn")] == [
        160
    ] * 4
    assert reused(loop, truth, second, "red") == 0


@pytest.mark.parametrize("name", ["plain", "night"])
def test_what_the_base_computed_serves_every_expert_that_waits(
    runner: Runner, truth: Truth, name: str
) -> None:
    loop, first = by_hand(runner), text(100, 1)
    said = written(loop, first, {name: 1.0}, Sampling(40))
    second = [*first, *said, *text(30, 2, dusk=23, dawn=27)]
    assert reused(loop, truth, second, "dawn") == 128
    assert reused(loop, truth, second, "dusk") == 160


def test_behind_an_invocation_that_stays_an_adapter_finds_its_own_again(
    tiny_dir: Path, folders: dict[str, Path], truth: Truth, device: str
) -> None:
    runner = loaded(tiny_dir, folders, device)
    loop, first = by_hand(runner), text(100, 1, dawn=40)
    said = written(loop, first, {"dawn": 1.0}, Sampling(40))
    second = [*first, *said, *text(30, 2)]
    assert reused(loop, truth, second, "noon") == 32
    assert reused(loop, truth, second, "plain") == 32
    assert reused(loop, truth, second, "dawn") == 128
    moved = [*second, *text(9, 3, dawn=7)]
    assert reused(loop, truth, moved, "noon") == 160
    runner.unload(["dawn"])
    runner.load([load_adapter("dawn", folders["dawn"], runner.linears)])
    assert reused(loop, truth, [*first, *said], "dawn") == 32
    assert runner.arena.free_tokens == runner.arena.capacity


def test_an_evicted_adapter_leaves_what_the_base_made(
    tiny_dir: Path, folders: dict[str, Path], truth: Truth, device: str
) -> None:
    runner = loaded(tiny_dir, {}, device)
    shelf = AdapterShelf(lambda n: load_adapter(n, folders[n], runner.linears), capacity=1)
    loop, prompt = StepLoop(runner, EngineLimits(), shelf), text(100, 1, dusk=40, dawn=70)
    assert [reused(loop, truth, prompt, n) for n in ("dawn", "dusk", "dawn")] == [0, 32, 64]
    assert shelf.counters.loads == 3 and runner.bank.names == ["dawn"]
    assert runner.bank.invocation("dawn") == MARKS["dawn"] and not runner.bank.invocation("dusk")
    loop.stop()


@pytest.mark.parametrize("seed", range(5))
def test_random_mixtures_come_and_go_and_every_row_gets_its_logits(
    runner: Runner, truth: Truth, seed: int
) -> None:
    dice, story = random.Random(seed), text(160, 11)
    loop = by_hand(runner, step_tokens=dice.choice([16, 40, 256]), max_rows=dice.choice([4, 12]))
    jobs: list[Prompted] = []
    cancelled: list[Prompted] = []
    for _ in range(25):
        prompt = story[: dice.randrange(8, 160)] + text(dice.choice([4, 4, 30]), dice.randrange(3))
        for name in dice.sample(WAITING, 2):
            place = dice.choice([len(prompt) - 4, dice.randrange(len(prompt))])
            prompt[place : place + len(MARKS[name])] = MARKS[name]
        jobs.append(Prompted(dice.sample(EVERYONE, dice.choice([1, 2, 4])), prompt))
        loop.submit(jobs[-1], USUAL)
        for _ in range(dice.choice([0, 1, 5])):
            loop._step()
        if dice.random() < 0.3:
            cancelled.append(dice.choice(jobs))
            loop.cancel(cancelled[-1])
    for _ in range(2000):
        if loop.load == (0, 0):
            break
        loop._step()
    assert loop.load == (0, 0)
    assert all(job.done or job in cancelled for job in jobs)
    for job in jobs:
        if job.done:
            job.check(truth)
    assert runner.arena.free_tokens == runner.arena.capacity


def test_the_loss_matrix_lets_an_adapter_act_from_its_invocation_on(
    tiny_dir: Path, folders: dict[str, Path], truth: Truth, runner: Runner
) -> None:
    """Rows of different lengths: with one invocation, with none, with a later one in the answer."""
    lines = [(text(20, 1, dawn=15), 5), (text(33, 2), 9), (text(28, 3, dawn=4), 12)]
    examples = []
    for number, (prompt, size) in enumerate(lines):
        said = text(size, 9, dawn=1) if number else text(size, 9)
        examples.append(Example(Line(str(number), "", ""), (*prompt, *said), len(prompt)))
    adapters = [load_adapter(n, folders[n], runner.linears) for n in ("dawn", "red")]
    model = AutoModelForCausalLM.from_pretrained(tiny_dir)
    cells = {c.model: c.loss for c in loss_matrix(model, adapters, {"all": examples})}
    for name in ("dawn", "red"):
        total = 0.0
        for example in examples:
            start = last_occurrence(example.tokens[: example.prompt_length], MARKS["dawn"])
            offsets = None if start is None else len(example.tokens) - start
            given = {"alora_offsets": [offsets]} if name == "dawn" else {}
            logps = torch.log_softmax(truth.logits(name, example.tokens, **given).double(), -1)
            places = range(example.prompt_length, len(example.tokens))
            total -= sum(float(logps[p - 1, example.tokens[p]]) for p in places)
        assert cells[name] == pytest.approx(total / (5 + 9 + 12), abs=1e-4)
        assert abs(cells[name] - cells["base"]) > 1e-3


async def test_a_chat_has_the_answer_of_peft(
    tiny_dir: Path, folders: dict[str, Path], tmp_path: Path, device: str
) -> None:
    """Adapters that wait for the assistant's turn, from the configuration to the text."""
    names = ("dawn", "dusk")
    own = {n: Path(shutil.copytree(folders[n], tmp_path / n)) for n in names}
    experts = tuple((n, str(folder)) for n, folder in own.items())
    settings = {"device": device, "dtype": "float32", "threads": 1}
    tokenizer = AutoTokenizer.from_pretrained(tiny_dir)
    for folder in own.values():
        config = json.loads((folder / "adapter_config.json").read_text())
        config["alora_invocation_tokens"] = tokenizer.encode("<|im_start|>assistant\n")
        (folder / "adapter_config.json").write_text(json.dumps(config))
    local, truth = LocalExperts(LocalSpec(str(tiny_dir), experts, **settings)), Truth(tiny_dir, own)
    local.engine.runner.ends = frozenset()
    messages = (("user", "Hello."), ("assistant", "Well?"), ("user", "Why is the sky blue? " * 9))
    prompt = local.prompt(messages)
    for name in names:
        asked = Generation("", messages, ((name, 1.0),), Sampling(12, logprobs=0))
        said = [p.token async for c in local.generate(asked) for p in c.logprobs]
        expected = truth.generate(name, prompt, 12)
        assert said == [tokenizer.decode([t], skip_special_tokens=False) for t in expected]
    before = local.stats()
    both = ((names[0], 0.6), (names[1], 0.4))
    asked = Generation("", messages, both, Sampling(1, logprobs=1), LocalMode.MIXTURE)
    (said,) = [p async for c in local.generate(asked) for p in c.logprobs]
    each = [torch.softmax(truth.behind(n, tuple(prompt)).double(), -1) for n in names]
    assert said.logprob == pytest.approx(
        float((0.6 * each[0] + 0.4 * each[1]).max().log()), abs=1e-4
    )
    after = local.stats()
    assert after["step_tokens"] - before["step_tokens"] < 2 * (16 + 4)
    local.engine.stop()
